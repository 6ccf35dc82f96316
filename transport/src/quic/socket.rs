//! The UDP socket below a QUIC endpoint: large buffers, and a wrapper that closes the trap of jumbo frames and counts
//! datagrams that are not QUIC.
//!
//! The trap: quinn hands the kernel up to ten datagrams in one call, and the kernel takes 64 KiB at most. Ten of 8952
//! bytes are more; the kernel answers EMSGSIZE, and quinn-udp takes that for a probe of the MTU and drops all ten.
//!
//! **Invariant:** no call to the kernel carries more than `BATCH_BYTES_MAX` (`no_batch_is_larger_than_the_kernel_takes`).

use super::connection_ids::ConnectionIds;
use super::settings::SOCKET_BUFFER_BYTES;
use metrics::Counter;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

/// Bytes of one call to the kernel: 65,535 less IP and UDP heads, rounded down.
const BATCH_BYTES_MAX: usize = 65_000;
/// Shortest packet quinn looks into: first byte, connection id, packet number, and the sample for its mask.
const PACKET_BYTES_MIN: usize = 21;
const QUIC_VERSION_1: [u8; 4] = [0, 0, 0, 1];
const VERSION_NEGOTIATION: [u8; 4] = [0, 0, 0, 0];

/// What the kernel granted, without its own doubling for bookkeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrantedBuffers {
    pub(super) receive_bytes: usize,
    pub(super) send_bytes: usize,
}

/// A socket at `address`, or at any port of any interface.
pub(super) fn bind(address: Option<SocketAddr>) -> io::Result<(std::net::UdpSocket, GrantedBuffers)> {
    let socket = match address {
        Some(address) => bound(address)?,
        None => bound((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bound((Ipv4Addr::UNSPECIFIED, 0).into()))?,
    };
    // Refusal to enlarge a buffer is not an error: what counts is what there is.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    let granted =
        GrantedBuffers { receive_bytes: socket.recv_buffer_size()? / 2, send_bytes: socket.send_buffer_size()? / 2 };
    Ok((socket.into(), granted))
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Warns once per socket when the kernel gave less than asked.
pub(super) fn warn_if_capped(granted: GrantedBuffers, plane: &str) {
    if granted.receive_bytes < SOCKET_BUFFER_BYTES || granted.send_bytes < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            plane,
            receive_bytes = granted.receive_bytes,
            send_bytes = granted.send_bytes,
            wanted_bytes = SOCKET_BUFFER_BYTES,
            "the kernel caps UDP buffers; raise net.core.rmem_max and net.core.wmem_max for full speed"
        );
    }
}

/// Makes quinn's kind of socket, wrapped.
pub(super) fn wrap(
    socket: std::net::UdpSocket,
    ids: ConnectionIds,
    foreign: Counter,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(Arc::new(GuardedSocket { inner, ids, foreign, largest_segment: AtomicUsize::new(0) }))
}

#[derive(Debug)]
struct GuardedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    ids: ConnectionIds,
    foreign: Counter,
    /// Largest datagram that went out as part of a batch. It only grows, so a peer without jumbo frames beside one with
    /// them gets smaller batches than it could: 7 datagrams instead of 10.
    largest_segment: AtomicUsize,
}

impl AsyncUdpSocket for GuardedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size else { return self.inner.try_send(transmit) };
        self.largest_segment.fetch_max(segment, Ordering::Relaxed);
        let batch_bytes = segments_max(segment) * segment;
        if transmit.contents.len() <= batch_bytes {
            return self.inner.try_send(transmit);
        }
        // The first batch after the path turned out to take jumbo frames; from here on quinn asks for fewer.
        for (at, contents) in transmit.contents.chunks(batch_bytes).enumerate() {
            let segment_size = (contents.len() > segment).then_some(segment);
            match self.inner.try_send(&Transmit { contents, segment_size, ..copy(transmit) }) {
                // quinn would send all of it again: what is left counts as lost on the way instead.
                Err(error) if at > 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, buffers, metas))?;
        let mut foreign = 0;
        for (buffer, meta) in buffers.iter().zip(metas.iter()).take(count) {
            let bytes = &buffer[..meta.len.min(buffer.len())];
            foreign += bytes.chunks(meta.stride.max(1)).filter(|datagram| !self.is_ours(datagram)).count() as u64;
        }
        if foreign > 0 {
            self.foreign.increment(foreign);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(segments_max(self.largest_segment.load(Ordering::Relaxed)))
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl GuardedSocket {
    /// Whether quinn can do anything with a datagram. One that resets a connection looks like noise by design, and counts
    /// as foreign though quinn understands it; so this only counts, and drops nothing.
    fn is_ours(&self, datagram: &[u8]) -> bool {
        const LONG: u8 = 0x80;
        const FIXED: u8 = 0x40;
        if datagram.len() < PACKET_BYTES_MIN {
            return false;
        }
        let version = &datagram[1..5];
        match datagram[0] {
            first if first & LONG != 0 && version == VERSION_NEGOTIATION => true,
            first if first & FIXED == 0 => false,
            first if first & LONG != 0 => version == QUIC_VERSION_1,
            _ => self.ids.made(&datagram[1..=ConnectionIds::BYTES]),
        }
    }
}

/// How many datagrams of `segment` bytes fit into one call; at least one.
fn segments_max(segment: usize) -> usize {
    (BATCH_BYTES_MAX / segment.max(1)).max(1)
}

fn copy<'a>(transmit: &Transmit<'a>) -> Transmit<'a> {
    Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn,
        contents: transmit.contents,
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Records what would go to the kernel, and says `WouldBlock` from the given call on.
    #[derive(Debug)]
    struct Recorder {
        sent: Mutex<Vec<(usize, Option<usize>)>>,
        blocks_from: usize,
    }

    #[derive(Debug)]
    struct AlwaysWritable;

    impl UdpPoller for AlwaysWritable {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncUdpSocket for Recorder {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(AlwaysWritable)
        }
        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            let mut sent = self.sent.lock();
            if sent.len() >= self.blocks_from {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            sent.push((transmit.contents.len(), transmit.segment_size));
            Ok(())
        }
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
        fn max_transmit_segments(&self) -> usize {
            64
        }
    }

    fn guarded(blocks_from: usize) -> (GuardedSocket, Arc<Recorder>) {
        let recorder = Arc::new(Recorder { sent: Mutex::default(), blocks_from });
        let inner: Arc<dyn AsyncUdpSocket> = recorder.clone();
        let ids = ConnectionIds::new([1; 32]);
        (GuardedSocket { inner, ids, foreign: Counter::noop(), largest_segment: AtomicUsize::new(0) }, recorder)
    }

    fn send(socket: &GuardedSocket, bytes: usize, segment_size: Option<usize>) -> io::Result<()> {
        let contents = vec![0; bytes];
        let destination = ([127, 0, 0, 1], 2).into();
        socket.try_send(&Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None })
    }

    #[test]
    fn no_batch_is_larger_than_the_kernel_takes() {
        for segment in [1200, 1452, 6499, 6501, 8952, 40_000] {
            let (socket, recorder) = guarded(usize::MAX);
            assert_eq!(socket.max_transmit_segments(), 64);
            send(&socket, 10 * segment - 5, Some(segment)).unwrap();
            let sent = std::mem::take(&mut *recorder.sent.lock());
            assert_eq!(sent.iter().map(|(bytes, _)| bytes).sum::<usize>(), 10 * segment - 5);
            for (bytes, size) in &sent {
                assert!(*bytes <= BATCH_BYTES_MAX, "{sent:?}");
                assert_eq!(*size, (*bytes > segment).then_some(segment), "{sent:?}");
            }
            // After that quinn is told, and no batch needs to be split.
            let count = socket.max_transmit_segments();
            assert_eq!(count, (BATCH_BYTES_MAX / segment).max(1));
            send(&socket, count.min(10) * segment, (count > 1).then_some(segment)).unwrap();
            assert_eq!(recorder.sent.lock().len(), 1);
        }
    }

    #[test]
    fn a_probe_goes_out_alone_and_leaves_the_batches_as_they_are() {
        let (socket, recorder) = guarded(usize::MAX);
        send(&socket, 8952, None).unwrap();
        assert_eq!(*recorder.sent.lock(), [(8952, None)]);
        assert_eq!(socket.max_transmit_segments(), 64);
    }

    #[test]
    fn a_split_batch_is_not_sent_twice_when_the_kernel_is_full() {
        let (socket, recorder) = guarded(1);
        send(&socket, 10 * 8952, Some(8952)).unwrap();
        assert_eq!(*recorder.sent.lock(), [(7 * 8952, Some(8952))]);
        let blocked = send(&socket, 8952, None).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn noise_is_told_from_quic() {
        let (socket, _) = guarded(0);
        let mut short = vec![0x40; 30];
        short[1..=ConnectionIds::BYTES].copy_from_slice(&socket.ids.make());
        let mut long = vec![0xc0; 1200];
        long[1..5].copy_from_slice(&QUIC_VERSION_1);
        let with_first = |first: u8, packet: &[u8]| [&[first], &packet[1..]].concat();
        assert!(socket.is_ours(&short));
        assert!(socket.is_ours(&long));
        assert!(!socket.is_ours(&[]));
        assert!(!socket.is_ours(&short[..20]));
        assert!(!socket.is_ours(&with_first(0, &short)), "the fixed bit");
        assert!(!socket.is_ours(&with_first(0x80, &long)), "the fixed bit");
        assert!(!socket.is_ours(&[0x40; 30]), "an id that is not ours");
        assert!(!socket.is_ours(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!socket.is_ours(&[0xff; 1200]), "another version");
    }
}
