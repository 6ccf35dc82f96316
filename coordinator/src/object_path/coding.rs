//! Coding of a batch of stripes while its bytes are in cache: parity, and BLAKE3 of every cell. Runs on the
//! coding threads.
//!
//! Pure but for the buffers it takes from the stock.

use super::api::ObjectError;
use super::cell_stock::CellStock;
use bytes::Bytes;
use holdfast_codec::{Codec, Stripe};
use holdfast_proto::node::Cell;

/// A stripe with its k data cells filled.
pub(crate) struct DataStripe {
    /// Its place in the segment.
    pub(crate) stripe: Stripe,
    /// The k data cells by slot, `stripe.cell_bytes` each, zeros after the stripe's last byte.
    pub(crate) data: Vec<Bytes>,
}

impl DataStripe {
    /// The object bytes in it, in order: the cells without their padding.
    pub(crate) fn object_bytes(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.data.iter().enumerate().filter_map(|(slot, cell)| {
            let range = self.stripe.data_range(slot);
            let len = usize::try_from(range.end - range.start).ok()?;
            (len > 0).then(|| cell.slice(..len))
        })
    }
}

/// Codes `stripes`, in order. For each of the n slots: its cells, in stripe order.
pub(crate) fn code_batch(
    codec: &Codec,
    stock: &CellStock,
    stripes: &[DataStripe],
) -> Result<Vec<Vec<Cell>>, ObjectError> {
    let mut cells: Vec<Vec<Cell>> = (0..codec.scheme().n()).map(|_| Vec::with_capacity(stripes.len())).collect();
    for stripe in stripes {
        let parity = parity_of(codec, stock, stripe)?;
        for (lane, bytes) in cells.iter_mut().zip(stripe.data.iter().cloned().chain(parity)) {
            let hash = *blake3::hash(&bytes).as_bytes();
            lane.push(Cell { bytes, hash });
        }
    }
    Ok(cells)
}

fn parity_of(codec: &Codec, stock: &CellStock, stripe: &DataStripe) -> Result<Vec<Bytes>, ObjectError> {
    let cell_bytes = stripe.data.first().map_or(0, Bytes::len);
    let mut parity: Vec<_> = (0..codec.scheme().m()).map(|_| stock.take(cell_bytes)).collect();
    let data: Vec<&[u8]> = stripe.data.iter().map(AsRef::as_ref).collect();
    let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(|cell| &mut cell[..]).collect();
    codec.encode(&data, &mut targets).map_err(|error| ObjectError::Internal { reason: format!("encode: {error}") })?;
    Ok(parity.into_iter().map(|cell| cell.freeze()).collect())
}
