//! Removes what a run made: everything under its prefix, with single DELETEs, which every server has.

use crate::s3::{OperationError, Target};
use futures::stream::{FuturesUnordered, StreamExt};

/// Passes over the listing: some servers list a key for a moment after it was deleted.
const PASSES_MAX: usize = 5;

/// Deletes until a listing is empty.
pub(crate) async fn remove_all(target: &Target, prefix: &str, concurrency: u32) -> Result<(), OperationError> {
    for _ in 0..PASSES_MAX {
        let keys = target.keys(&mut target.connect(), prefix).await?;
        if keys.is_empty() {
            return Ok(());
        }
        let queue = std::sync::Mutex::new(keys);
        let workers: FuturesUnordered<_> = (0..concurrency)
            .map(|_| async {
                let mut connection = target.connect();
                loop {
                    let key = queue.lock().ok().and_then(|mut keys| keys.pop());
                    let Some(key) = key else { return Ok(()) };
                    match target.delete(&mut connection, &key).await {
                        Ok(()) | Err(OperationError::Status { status: 404, .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            })
            .collect();
        workers.collect::<Vec<Result<(), OperationError>>>().await.into_iter().collect::<Result<Vec<()>, _>>()?;
    }
    Ok(())
}
