//! How history is cut into pieces for another node, and put together again. Knows nothing of where it comes from.

use bytes::Bytes;
use prost::Message;
use sojourn_proto::stored;
use std::collections::VecDeque;

/// A piece is filled up to about this many bytes.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// No piece has more.
const PIECE_MAX: usize = 1 << 20;
/// No item has more: a decision is the largest.
const ITEM_MAX: usize = 32 << 20;
/// What a piece begins with: the format, then the check sum of the rest.
const FORMAT: u8 = 1;
const HEAD: usize = 5;

/// The bytes of a piece.
pub(super) fn encode(piece: &stored::HistoryPiece) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + piece.encoded_len());
    out.extend_from_slice(&[FORMAT, 0, 0, 0, 0]);
    // encoding into a Vec cannot fail: it grows
    piece.encode(&mut out).unwrap_or_default();
    let crc = crc32c::crc32c(&out[HEAD..]);
    out[1..HEAD].copy_from_slice(&crc.to_be_bytes());
    out
}

/// A piece from its bytes.
///
/// # Errors
/// A text that says what they are instead.
pub(super) fn decode(bytes: &[u8]) -> Result<stored::HistoryPiece, String> {
    if bytes.len() > PIECE_MAX {
        return Err(format!(
            "a piece of history has {} bytes, the limit is {PIECE_MAX}",
            bytes.len()
        ));
    }
    let Some((head, body)) = bytes.split_at_checked(HEAD) else {
        return Err(format!(
            "a piece of history has {} bytes, expected more than {HEAD}",
            bytes.len()
        ));
    };
    if head[0] != FORMAT {
        return Err(format!(
            "a piece of history has format {}, this version reads {FORMAT}",
            head[0]
        ));
    }
    let expected = head[1..].iter().fold(0, |n, b| n << 8 | u32::from(*b));
    let found = crc32c::crc32c(body);
    if found != expected {
        return Err(format!(
            "a piece of history has check sum {found:08x}, expected {expected:08x}"
        ));
    }
    stored::HistoryPiece::decode(Bytes::copy_from_slice(body))
        .map_err(|e| format!("a piece of history cannot be decoded: {e}"))
}

/// Puts items into pieces, in order.
pub(super) struct Packing {
    shard: u16,
    after: u64,
    up_to: u64,
    number: u64,
    items: VecDeque<Bytes>,
    bytes: usize,
}

impl Packing {
    /// What comes behind the log index `after`, up to `up_to`.
    pub(super) fn new(shard: u16, after: u64, up_to: u64) -> Packing {
        Packing {
            shard,
            after,
            up_to,
            number: 0,
            items: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds an item.
    pub(super) fn push(&mut self, item: stored::history_item::Item) {
        let item = stored::HistoryItem { item: Some(item) };
        let bytes = Bytes::from(item.encode_to_vec());
        self.bytes += bytes.len();
        self.items.push_back(bytes);
    }

    /// Whether there is enough for a piece.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= PIECE_BYTES
    }

    /// The next piece; `None` when nothing is left.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = stored::HistoryPiece {
            shard: self.shard.into(),
            number: self.number,
            after: self.after,
            up_to: self.up_to,
            items: Vec::new(),
            open: false,
        };
        let mut room = PIECE_BYTES;
        while let Some(mut item) = self.items.pop_front() {
            if item.len() > room {
                if piece.items.is_empty() {
                    piece.items.push(item.split_to(room));
                    piece.open = true;
                    self.bytes -= room;
                }
                self.items.push_front(item);
                break;
            }
            self.bytes -= item.len();
            // its length and tag, too: many small ones would make a piece too large
            room = room.saturating_sub(item.len() + 6);
            piece.items.push(item);
        }
        if piece.items.is_empty() {
            return None;
        }
        self.number += 1;
        Some(encode(&piece))
    }
}

/// Takes pieces in order, and gives their items.
pub(super) struct Unpacking {
    /// The log index behind which it begins.
    pub(super) after: u64,
    /// The log index that it goes up to.
    pub(super) up_to: u64,
    next: u64,
    open: Option<Vec<u8>>,
}

impl Unpacking {
    /// Begins with what the first piece says.
    pub(super) fn new(first: &stored::HistoryPiece) -> Unpacking {
        Unpacking {
            after: first.after,
            up_to: first.up_to,
            next: 0,
            open: None,
        }
    }

    /// Whether an item is still open.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The items that are complete with this piece.
    ///
    /// # Errors
    /// A text: it is not the next one, or its items are none.
    pub(super) fn take(
        &mut self,
        piece: stored::HistoryPiece,
    ) -> Result<Vec<stored::history_item::Item>, String> {
        if piece.number != self.next {
            return Err(format!(
                "found piece {} of history, expected piece {}",
                piece.number, self.next
            ));
        }
        if (piece.after, piece.up_to) != (self.after, self.up_to) {
            return Err(format!(
                "piece {} is of entries {} to {}, those before it were of {} to {}",
                piece.number, piece.after, piece.up_to, self.after, self.up_to
            ));
        }
        let mut items = VecDeque::from(piece.items);
        let mut whole = Vec::with_capacity(items.len());
        let empty = || "a piece of history has no item, expected one".to_owned();
        if let Some(mut begun) = self.open.take() {
            begun.extend_from_slice(&items.pop_front().ok_or_else(empty)?);
            if begun.len() > ITEM_MAX {
                return Err(format!(
                    "an item of history has more than {ITEM_MAX} bytes, the limit"
                ));
            }
            if piece.open && items.is_empty() {
                self.open = Some(begun);
            } else {
                whole.push(Bytes::from(begun));
            }
        }
        if piece.open && self.open.is_none() {
            self.open = Some(items.pop_back().ok_or_else(empty)?.to_vec());
        }
        whole.extend(items);
        self.next += 1;
        let decoded = whole.into_iter().map(|item| {
            let item = stored::HistoryItem::decode(item)
                .map_err(|e| format!("an item of history cannot be decoded: {e}"))?;
            item.item
                .ok_or_else(|| "an item of history is of a kind that is not known".to_owned())
        });
        decoded.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stored::history_item::Item;

    fn items() -> Vec<Item> {
        let record = |index, bytes: &'static [u8]| stored::PackedRecord {
            index,
            sub: 1,
            decision: Bytes::from_static(bytes),
        };
        vec![
            Item::Customer(stored::HistoryCustomer {
                hash: 0x0102_0304_0506_0708,
                records: vec![record(300, b"abc")],
                ended: vec![stored::HistoryEnded {
                    slot: 9,
                    run: 2,
                    ended: Bytes::from_static(b"e"),
                }],
                away: Some(Bytes::new()),
            }),
            Item::Receipts(stored::HistoryReceipts {
                day: 20_000,
                receipts: vec![stored::HistoryReceipt {
                    hash: Bytes::from_static(b"0123456789abcdef"),
                    index: 300,
                    sub: 1,
                }],
            }),
            Item::Unmatched(stored::HistoryUnmatched {
                at: 5,
                signals: vec![Bytes::from_static(b"u")],
            }),
            Item::Mark(Bytes::from_static(b"m")),
        ]
    }

    #[test]
    fn a_piece_has_these_bytes_for_ever() {
        let mut packing = Packing::new(3, 200, 400);
        items().into_iter().for_each(|item| packing.push(item));
        let bytes = packing.next().expect("a piece");
        assert!(packing.next().is_none());
        // format, check sum; shard, after and up to; then each item
        let golden = concat!(
            "01ee815d8b",
            "080318c801209003",
            "2a290a27090807060504030201120a08ac0210011a036162631a0e09090000000000000010021a01652200",
            "2a1f121d08a09c0112170a103031323334353637383961626364656610ac021801",
            "2a071a050805120175",
            "2a0322016d",
        );
        assert_eq!(hex::encode(&bytes), golden);
        let piece = decode(&bytes).expect("what was encoded decodes");
        let mut unpacking = Unpacking::new(&piece);
        assert_eq!(unpacking.take(piece), Ok(items()));
        assert!(!unpacking.is_open());
    }

    #[test]
    fn an_item_larger_than_a_piece_goes_through_several() {
        let large = Item::Mark((0..900_000_u32).map(|n| n as u8).collect::<Vec<_>>().into());
        let mut packing = Packing::new(3, 0, 9);
        let mut all = items();
        all.insert(1, large);
        all.iter().cloned().for_each(|item| packing.push(item));
        let (mut unpacking, mut found, mut pieces) = (None, Vec::new(), 0);
        while let Some(bytes) = packing.next() {
            assert!(bytes.len() < PIECE_BYTES + 100, "{} bytes", bytes.len());
            let piece = decode(&bytes).expect("a piece");
            let unpacking = unpacking.get_or_insert_with(|| Unpacking::new(&piece));
            found.extend(unpacking.take(piece).expect("in order"));
            pieces += 1;
        }
        assert_eq!((pieces, found), (5, all));
        assert!(!unpacking.expect("pieces came").is_open());
    }

    #[test]
    fn what_is_no_piece_is_refused_with_the_reason() {
        let mut packing = Packing::new(3, 200, 400);
        items().into_iter().for_each(|item| packing.push(item));
        let whole = packing.next().expect("a piece");
        for end in 0..whole.len() {
            decode(&whole[..end]).expect_err("it is cut short");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            decode(&changed).expect_err("a bit is turned");
        }
        let why = decode(&vec![1; PIECE_MAX + 1]).expect_err("it is too large");
        assert!(why.contains("the limit is 1048576"), "{why}");

        let piece = decode(&whole).expect("a piece");
        let mut unpacking = Unpacking::new(&piece);
        let late = stored::HistoryPiece {
            number: 1,
            ..piece.clone()
        };
        let why = unpacking.take(late).expect_err("the first is missing");
        assert!(why.contains("expected piece 0"), "{why}");
        let other = stored::HistoryPiece {
            up_to: 401,
            ..piece.clone()
        };
        let why = unpacking.take(other).expect_err("it is of another giving");
        assert!(why.contains("200 to 401"), "{why}");
        let strange = stored::HistoryPiece {
            items: vec![Bytes::from_static(b"\x2a\x00")],
            ..piece
        };
        let why = unpacking.take(strange).expect_err("item 5 is not known");
        assert!(why.contains("not known"), "{why}");
    }
}
