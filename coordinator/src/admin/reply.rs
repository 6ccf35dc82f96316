//! How results become HTTP answers: JSON bodies, and the status that a failure's kind asks for.

use super::operations::AdminFailure;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

impl IntoResponse for AdminFailure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = self.code.text(), message = self.message, "administration call failed");
        }
        (status, Json(self.to_wire())).into_response()
    }
}
