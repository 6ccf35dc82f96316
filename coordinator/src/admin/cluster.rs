//! Endpoints of status, backends, repair, scrub and object inspection: each hands its arguments on and its answer back.

use super::{AdminFailure, AdminResult, Code, Shared, decode, finish};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use holdfast_proto::ErrorKind;
use holdfast_proto::admin::{BackendAdd, BackendView, ClusterStatus, ObjectView, RepairStatus, ScrubStatus};
use serde::Deserialize;

/// Longest name of a backend that may be given.
const BACKEND_NAME_BYTES_MAX: usize = 64;

pub(crate) async fn status(State(state): Shared) -> AdminResult<Json<ClusterStatus>> {
    let mut status = state.operations.cluster_status().await?;
    status.findings.extend(super::faults::findings(&state).await);
    Ok(Json(status))
}

pub(crate) async fn backend_list(State(state): Shared) -> AdminResult<Json<Vec<BackendView>>> {
    state.operations.backend_list().await.map(Json)
}

pub(crate) async fn backend_add(State(state): Shared, body: Bytes) -> AdminResult<Json<BackendView>> {
    let add = checked_add(decode(&body)?)?;
    tracing::info!(location = add.location, "backend add");
    finish(async move { state.operations.backend_add(add).await }).await.map(Json)
}

pub(crate) async fn backend_drain(State(state): Shared, Path(backend): Path<String>) -> AdminResult<Json<BackendView>> {
    tracing::info!(backend, "backend drain");
    finish(async move { state.operations.backend_drain(&backend).await }).await.map(Json)
}

pub(crate) async fn backend_remove(
    State(state): Shared,
    Path(backend): Path<String>,
) -> AdminResult<Json<BackendView>> {
    tracing::info!(backend, "backend remove");
    finish(async move { state.operations.backend_remove(&backend).await }).await.map(Json)
}

pub(crate) async fn backend_replace(
    State(state): Shared,
    Path(backend): Path<String>,
    body: Bytes,
) -> AdminResult<Json<BackendView>> {
    let add = checked_add(decode(&body)?)?;
    tracing::info!(backend, location = add.location, "backend replace");
    finish(async move { state.operations.backend_replace(&backend, add).await }).await.map(Json)
}

pub(crate) async fn repair_status(State(state): Shared) -> AdminResult<Json<RepairStatus>> {
    state.operations.repair_status().await.map(Json)
}

pub(crate) async fn repair_start(State(state): Shared) -> AdminResult<Json<RepairStatus>> {
    finish(async move { state.operations.repair_start().await }).await.map(Json)
}

pub(crate) async fn repair_pause(State(state): Shared) -> AdminResult<Json<RepairStatus>> {
    tracing::info!("repair pause");
    finish(async move { state.operations.repair_pause().await }).await.map(Json)
}

pub(crate) async fn repair_resume(State(state): Shared) -> AdminResult<Json<RepairStatus>> {
    tracing::info!("repair resume");
    finish(async move { state.operations.repair_resume().await }).await.map(Json)
}

pub(crate) async fn scrub_start(State(state): Shared) -> AdminResult<Json<ScrubStatus>> {
    finish(async move { state.operations.scrub_start().await }).await.map(Json)
}

pub(crate) async fn scrub_status(State(state): Shared) -> AdminResult<Json<ScrubStatus>> {
    state.operations.scrub_status().await.map(Json)
}

/// Which object to look at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectQuery {
    bucket: String,
    key: String,
    version: Option<String>,
}

pub(crate) async fn object_inspect(
    State(state): Shared,
    query: Result<Query<ObjectQuery>, QueryRejection>,
) -> AdminResult<Json<ObjectView>> {
    let Query(query) = query.map_err(|error| {
        AdminFailure::new(Code::MalformedRequest, ErrorKind::Invalid, format!("read the query: {error}"))
    })?;
    state.operations.object_inspect(&query.bucket, &query.key, query.version.as_deref()).await.map(Json)
}

fn checked_add(add: BackendAdd) -> AdminResult<BackendAdd> {
    let invalid = |message: String| {
        AdminFailure::new(Code::BackendUnusable, ErrorKind::Invalid, message).or_try("give disk:/absolute/path")
    };
    let path = add
        .location
        .strip_prefix("disk:")
        .ok_or_else(|| invalid(format!("{:?} is not the place of a backend: only disk:PATH is known", add.location)))?;
    if !path.starts_with('/') {
        return Err(invalid(format!("{path:?} is not an absolute path on the server")));
    }
    if let Some(name) = &add.name {
        let fits = (1..=BACKEND_NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            return Err(invalid(format!("{name:?} is not a name for a backend: letters, digits, '-', '_', '.'")));
        }
    }
    Ok(add)
}
