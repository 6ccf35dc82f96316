//! The watch channel openraft runs on: tokio's, but with those who wait woken in the order in which they began to wait.
//! Tokio wakes them in an order that it draws from the system, so that a simulation would never be the same again.

use openraft::async_runtime::watch::{RecvError, SendError};
use openraft::async_runtime::{Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// The kind of channel.
pub(super) struct FairWatch;

/// Rings for all who wait when it is dropped, too: the last sender's end is news.
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// Sends.
pub(super) struct Sender<T> {
    // Dropped before the bell rings.
    inner: watch::Sender<T>,
    bell: Bell,
}

/// Receives.
pub(super) struct Receiver<T> {
    inner: watch::Receiver<T>,
    bell: Arc<Notify>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bell: Bell(self.bell.0.clone()) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bell: self.bell.clone() }
    }
}

impl Watch for FairWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        let bell: Arc<Notify> = Arc::default();
        (Sender { inner: sender, bell: Bell(bell.clone()) }, Receiver { inner: receiver, bell })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<FairWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.inner.send(value).map_err(|error| SendError(error.0));
        self.bell.0.notify_waiters();
        sent
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let is_modified = self.inner.send_if_modified(modify);
        if is_modified {
            self.bell.0.notify_waiters();
        }
        is_modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver { inner: self.inner.subscribe(), bell: self.bell.0.clone() }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<FairWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let bell = self.bell.clone();
        loop {
            let mut ring = pin!(bell.notified());
            // Listening from before the look: what is sent after it rings.
            ring.as_mut().enable();
            match self.inner.has_changed() {
                Ok(true) => {
                    self.inner.mark_unchanged();
                    return Ok(());
                }
                Ok(false) => ring.await,
                // What was sent before the last sender went is still news.
                Err(_) if self.inner.borrow_and_update().has_changed() => return Ok(()),
                Err(_) => return Err(RecvError(())),
            }
        }
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.inner.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn who_waited_first_is_woken_first_and_the_last_value_and_the_end_are_seen() {
        let (sender, receiver) = FairWatch::channel(0);
        let woken: Arc<Mutex<Vec<u32>>> = Arc::default();
        let mut waiting = Vec::new();
        for number in 0..32 {
            let (mut receiver, woken) = (receiver.clone(), woken.clone());
            waiting.push(tokio::spawn(async move {
                while receiver.changed().await.is_ok() {
                    woken.lock().push(number);
                }
            }));
            tokio::task::yield_now().await;
        }
        sender.send(1).ok().unwrap();
        tokio::task::yield_now().await;
        assert_eq!(*woken.lock(), (0..32).collect::<Vec<_>>());
        let mut late = receiver.clone();
        sender.send(2).ok().unwrap();
        drop(sender);
        for ended in waiting {
            ended.await.unwrap();
        }
        assert_eq!(woken.lock().len(), 64);
        assert!(late.changed().await.is_ok(), "the value is news though nobody sends any more");
        assert_eq!(*late.borrow_watched(), 2);
        assert!(late.changed().now_or_never().unwrap().is_err());
    }
}
