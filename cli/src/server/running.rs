//! A server that serves, and how it stops.

use super::banner::Banner;
use super::cluster::network::Network;
use crate::failure::Failure;
use holdfast_coordinator::admin::Code;
use holdfast_coordinator::metadata::Metadata;
use holdfast_storage_node::LocalNode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long maintenance, backends and metadata each may take to stop after the requests.
const PARTS_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts that run.
pub(crate) struct Running {
    pub(crate) banner: Banner,
    pub(crate) shutdown: CancellationToken,
    /// `None` on a node that serves no S3.
    pub(crate) s3: Option<JoinHandle<Result<(), String>>>,
    pub(crate) admin: JoinHandle<()>,
    /// Runs maintenance while this node leads; `None` on a node that is no coordinator.
    pub(crate) keeper: Option<JoinHandle<()>>,
    /// `None` on a node without backends.
    pub(crate) node: Option<Arc<LocalNode>>,
    /// `None` on a node that is no coordinator.
    pub(crate) metadata: Option<Arc<dyn Metadata>>,
    /// `None` on a server that is alone.
    pub(crate) network: Option<Arc<Network>>,
}

impl Running {
    /// Returns if an endpoint ends although nobody asked it to.
    pub(crate) async fn broken(&mut self) -> Failure {
        let s3 = async {
            match &mut self.s3 {
                Some(s3) => s3.await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            ended = s3 => match ended {
                Ok(Ok(())) => "the S3 endpoint ended".to_owned(),
                Ok(Err(error)) => format!("the S3 endpoint ended: {error}"),
                Err(error) => format!("the S3 endpoint broke: {error}"),
            },
            ended = &mut self.admin => match ended {
                Ok(()) => "the administration endpoint ended".to_owned(),
                Err(error) => format!("the administration endpoint broke: {error}"),
            },
        };
        Failure::new(Code::Internal, why)
    }

    /// Stops accepting, lets requests finish until `drain_timeout`, then stops maintenance and flushes the metadata. The
    /// network goes last: until then this node still counts for the others.
    pub(crate) async fn stop(self, drain_timeout: Duration) -> Result<(), Failure> {
        self.shutdown.cancel();
        let aborts = [self.s3.as_ref().map(JoinHandle::abort_handle), Some(self.admin.abort_handle())];
        let drained = tokio::time::timeout(drain_timeout, async {
            if let Some(s3) = self.s3 {
                let _ = s3.await;
            }
            let _ = self.admin.await;
        });
        if drained.await.is_err() {
            tracing::warn!(seconds = drain_timeout.as_secs(), "requests still under way are cut off");
            aborts.into_iter().flatten().for_each(|abort| abort.abort());
        }
        if let Some(keeper) = self.keeper {
            // It bounds its own end.
            let _ = keeper.await;
        }
        if let Some(node) = self.node
            && tokio::time::timeout(PARTS_STOP_TIMEOUT, node.shutdown()).await.is_err()
        {
            tracing::warn!("the backends did not stop in time; what was acknowledged is on stable storage");
        }
        let flushed = match self.metadata {
            Some(metadata) => tokio::time::timeout(PARTS_STOP_TIMEOUT, metadata.shutdown()).await,
            None => Ok(Ok(())),
        };
        if let Some(network) = self.network {
            network.transport.close().await;
        }
        match flushed {
            Ok(Ok(())) => {
                tracing::info!("stopped");
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::new(Code::StartFailed, format!("flush the metadata: {error}"))),
            Err(_) => {
                Err(Failure::new(Code::MetadataUnavailable, "the metadata did not stop in time; nothing is lost"))
            }
        }
    }
}
