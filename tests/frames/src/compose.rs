//! One frame: a header, every field that its version has, lengths that lie, damage afterwards.
//!
//! Everything is drawn from [`Dice`].

use bytes::Bytes;
use holdfast::kafka::protocol::{ApiKey, Records, Str};
use uuid::Uuid;

use crate::dice::Dice;
use crate::names::Names;
use crate::table;

/// Largest request without records that a door reads.
pub const PLAIN_BYTES_MAX: usize = 4 << 20;

/// How a version lays a message out.
#[derive(Clone, Copy)]
pub struct Layout {
    pub version: i16,
    pub flexible: bool,
}

/// A type of the table that can be made up.
pub trait Compose {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout);
}

/// A message of the table, no primitive.
pub trait Structure: Compose {}

/// A frame, without and with its length.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Bytes,
    /// What its length field says; mostly the truth.
    pub claims: i32,
}

impl Frame {
    pub fn of(bytes: impl Into<Bytes>) -> Frame {
        let bytes = bytes.into();
        Frame {
            claims: i32::try_from(bytes.len()).unwrap_or(i32::MAX),
            bytes,
        }
    }

    /// As it goes over a connection.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.claims.to_be_bytes());
        out.extend_from_slice(&self.bytes);
    }

    pub fn lies(&self) -> bool {
        usize::try_from(self.claims) != Ok(self.bytes.len())
    }
}

/// Makes up one frame after the other.
pub struct Composer<'d> {
    pub dice: &'d mut Dice,
    pub names: &'d Names,
    out: Vec<u8>,
    /// Bytes after which arrays end.
    pub(crate) budget: usize,
    /// One length in so many is wrong; 0 for none.
    lies: usize,
    /// The next array is to be long: one element again and again.
    repeats: bool,
    tags: Vec<Vec<(u32, Vec<u8>)>>,
    pub(crate) producer: (i64, i16),
    pub(crate) member: (String, i32),
}

/// A request of any API in any version.
pub fn frame(dice: &mut Dice, names: &Names) -> Frame {
    let api = match dice.below(8) {
        // What holds most of the code is asked for more often.
        0 => dice.pick(&[
            ApiKey::Produce,
            ApiKey::Fetch,
            ApiKey::CreateTopics,
            ApiKey::Metadata,
        ]),
        _ => dice.pick(ApiKey::ALL),
    };
    request(dice, names, api)
}

/// A request of this API in any version.
pub fn request(dice: &mut Dice, names: &Names, api: ApiKey) -> Frame {
    let advertised = api.advertised();
    let (first, last) = (*advertised.start(), *advertised.end());
    let version = match dice.below(40) {
        0 => first.saturating_sub(1),
        1 => last.saturating_add(1),
        _ => first + dice.below((last - first + 1) as usize) as i16,
    };
    let layout = Layout {
        version,
        flexible: version >= api.flexible_from(),
    };
    let kind = dice.below(400);
    let repeats = kind == 0;
    let budget = if repeats {
        1 << (14 + dice.below(8))
    } else {
        1 << (9 + dice.below(6))
    };
    let lies = if (1..60).contains(&kind) { 8 } else { 0 };
    let (producer, member) = (names.producer(dice), names.member(dice));
    let mut c = Composer {
        dice,
        names,
        out: Vec::with_capacity(256),
        budget: budget.min(PLAIN_BYTES_MAX - (256 << 10)),
        lies,
        repeats,
        tags: Vec::new(),
        producer,
        member,
    };
    c.header(api, layout);
    let composing = table::composing(api);
    if let Some(composing) = composing {
        composing(&mut c, layout);
    }
    let mut out = c.out;
    if (60..140).contains(&kind) {
        damage(dice, &mut out);
    }
    let mut frame = Frame::of(out);
    if kind == 140 {
        let bytes = frame.claims;
        frame.claims = dice.pick(&[
            0,
            -1,
            i32::MIN,
            i32::MAX,
            bytes - 1,
            bytes + 1,
            16 << 20,
            (16 << 20) + 1,
            bytes / 2,
            4 << 20,
            1,
        ]);
    }
    frame
}

/// Turns some bytes over, cuts, repeats, moves.
pub fn damage(dice: &mut Dice, out: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        if out.is_empty() {
            return;
        }
        // Where API and version stand it is another request.
        let from = if dice.once_in(8) {
            0
        } else {
            4.min(out.len() - 1)
        };
        let at = from + dice.below(out.len() - from);
        match dice.below(8) {
            0 => out[at] ^= 1 << dice.below(8),
            1 => out[at] = dice.next() as u8,
            2 => out.truncate(at),
            3 => {
                let hostile: [&[u8]; 8] = [
                    b"\x7f\xff\xff\xff",
                    b"\xff\xff\xff\xfe",
                    b"\xff\xff\xff\xff\x0f",
                    b"\xff\xff\xff\xff\xff",
                    b"\x7f\xff",
                    b"\x80\x80\x80\x80\x08",
                    b"\x80\x80\x80\x80\x00",
                    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                ];
                let bytes = dice.pick(&hostile);
                let end = (at + bytes.len()).min(out.len());
                out.splice(at..end, bytes.iter().copied());
            }
            4 => {
                let end = (at + 1 + dice.below(16)).min(out.len());
                out.drain(at..end);
            }
            5 => {
                let end = (at + 1 + dice.below(64)).min(out.len());
                let again = out[at..end].to_vec();
                out.splice(at..at, again);
            }
            6 => {
                let end = (at + 1 + dice.below(32)).min(out.len());
                let moved: Vec<u8> = out.drain(at..end).collect();
                let to = dice.below(out.len() + 1);
                out.splice(to..to, moved);
            }
            _ => {
                let more: Vec<u8> = (0..dice.below(32)).map(|_| dice.next() as u8).collect();
                out.splice(at..at, more);
            }
        }
    }
}

impl Composer<'_> {
    fn header(&mut self, api: ApiKey, layout: Layout) {
        self.out.extend(api.code().to_be_bytes());
        self.out.extend(layout.version.to_be_bytes());
        let correlation_id = self.dice.next() as i32;
        self.out.extend(correlation_id.to_be_bytes());
        match self.dice.below(32) {
            0 => self.out.extend((-1_i16).to_be_bytes()),
            1 => self.out.extend(0_i16.to_be_bytes()),
            2 => {
                let bytes = self.dice.pick(&[255_usize, 256, 4096, 32_767]);
                self.out.extend((bytes as i16).to_be_bytes());
                self.out.resize(self.out.len() + bytes, b'c');
            }
            3 => self.out.extend(b"\x00\x02\xff\xfe"),
            4 => self
                .out
                .extend(self.dice.pick(&[-2_i16, i16::MIN, i16::MAX]).to_be_bytes()),
            _ => self.out.extend(b"\x00\x04fuzz"),
        }
        if layout.flexible {
            self.begin_tags();
            self.end_tags();
        }
    }

    /// Whether the next length is to be wrong.
    fn lie(&mut self) -> bool {
        self.lies > 0 && self.dice.once_in(self.lies)
    }

    fn varint(&mut self, mut value: u32) {
        // Longer than need be, now and then: as good a number.
        let padded = self.dice.once_in(64);
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        if padded {
            self.out.extend([value as u8 | 0x80, 0]);
        } else {
            self.out.push(value as u8);
        }
    }

    fn length(&mut self, layout: Layout, short: bool, length: Option<usize>) {
        let mut value = length.map_or(-1, |bytes| bytes as i64);
        if self.lie() {
            value = match self.dice.below(6) {
                0 => value - 1,
                1 => value.wrapping_add(1),
                2 => -2,
                3 => i64::from(i32::MAX),
                4 => value.wrapping_mul(2).wrapping_add(100),
                _ => self.dice.extreme(),
            };
            if layout.flexible && self.dice.once_in(4) {
                let varints: [&[u8]; 3] = [
                    b"\xff\xff\xff\xff\x0f",
                    b"\xff\xff\xff\xff\xff\x01",
                    b"\x80\x80\x80\x80\x80",
                ];
                let bytes = self.dice.pick(&varints);
                return self.out.extend(bytes);
            }
        }
        if layout.flexible {
            self.varint(value.wrapping_add(1) as u32);
        } else if short {
            self.out.extend((value as i16).to_be_bytes());
        } else {
            self.out.extend((value as i32).to_be_bytes());
        }
    }

    /// What `write` writes, apart.
    fn apart(&mut self, write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let before = std::mem::take(&mut self.out);
        self.budget = self.budget.saturating_sub(before.len());
        write(self);
        let written = std::mem::replace(&mut self.out, before);
        self.budget += self.out.len();
        written
    }

    pub fn field<T: Compose>(&mut self, owner: &'static str, field: &'static str, layout: Layout) {
        T::compose(self, owner, field, layout);
    }

    pub fn begin_tags(&mut self) {
        self.tags.push(Vec::new());
    }

    pub fn tag<T: Compose>(
        &mut self,
        tag: u32,
        owner: &'static str,
        field: &'static str,
        layout: Layout,
    ) {
        if self.dice.once_in(2) {
            return;
        }
        for _ in 0..=usize::from(self.dice.once_in(32)) {
            let mut bytes = self.apart(|c| T::compose(c, owner, field, layout));
            if self.lie() {
                bytes.push(0);
            }
            if let Some(tags) = self.tags.last_mut() {
                tags.push((tag, bytes));
            }
        }
    }

    pub fn end_tags(&mut self) {
        let mut tags = self.tags.pop().unwrap_or_default();
        if self.dice.once_in(24) {
            for _ in 0..=self.dice.below(3) {
                let tag = self.dice.pick(&[9_u32, 10, 127, 128, 10_000, u32::MAX]);
                tags.push((tag, vec![0xa5; self.dice.pick(&[0, 1, 17, 200])]));
            }
            if self.dice.once_in(3) {
                tags.reverse();
            }
            if self.dice.once_in(40) {
                let some = (5000, vec![1]);
                tags.resize(tags.len() + 500, some);
            }
        }
        let count = tags.len() as u32;
        let count = if self.lie() {
            self.dice.pick(&[count + 1, count + 1000, u32::MAX])
        } else {
            count
        };
        self.varint(count);
        for (tag, bytes) in tags {
            self.varint(tag);
            let size = bytes.len() as u32;
            let size = if self.lie() {
                self.dice.pick(&[0, size + 1, u32::MAX])
            } else {
                size
            };
            self.varint(size);
            self.out.extend(bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.out.len() >= self.budget
    }

    fn array<T: Compose>(&mut self, owner: &'static str, field: &'static str, layout: Layout) {
        let wanted = match self.dice.below(100) {
            0..6 => 0,
            6..64 => 1,
            64..86 => 2 + self.dice.below(3),
            86..97 => 5 + self.dice.below(16),
            _ => 21 + self.dice.below(280),
        };
        let repeats = self.repeats && self.dice.once_in(2);
        if repeats {
            self.repeats = false;
        }
        let mut count = 0;
        let mut items = self.apart(|c| {
            while count < wanted.max(usize::from(repeats)) && !c.is_full() {
                T::compose(c, owner, field, layout);
                count += 1;
            }
        });
        if repeats && !items.is_empty() {
            let room = self.budget.saturating_sub(self.out.len());
            let times = (room / items.len()).clamp(1, 1 << 20);
            items = items.repeat(times);
            count *= times;
        }
        self.length(layout, false, Some(count));
        self.out.append(&mut items);
    }

    fn bytes(&mut self, layout: Layout, short: bool, bytes: &[u8]) {
        self.length(layout, short, Some(bytes.len()));
        self.out.extend_from_slice(bytes);
    }
}

macro_rules! numbers {
    ($($ty:ty)*) => { $(
        impl Compose for $ty {
            fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, _: Layout) {
                let number = c.number(owner, field) as $ty;
                c.out.extend(number.to_be_bytes());
            }
        }
    )* };
}

numbers!(i8 i16 u16 i32 i64);

impl Compose for f64 {
    fn compose(c: &mut Composer<'_>, _: &'static str, _: &'static str, _: Layout) {
        // None that would hold the sender itself back.
        let numbers = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -1.0,
            1e9,
            1e18,
            f64::MAX,
            1e9 + 0.5,
        ];
        let number = c.dice.pick(&numbers);
        c.out.extend(number.to_be_bytes());
    }
}

impl Compose for bool {
    fn compose(c: &mut Composer<'_>, _: &'static str, _: &'static str, _: Layout) {
        let byte = c.dice.pick(&[0, 1, 0, 1, 0, 1, 0, 0xff]);
        c.out.push(byte);
    }
}

impl Compose for Uuid {
    fn compose(c: &mut Composer<'_>, _: &'static str, _: &'static str, _: Layout) {
        let id = c.names.topic_id(c.dice);
        c.out.extend(id.as_bytes());
    }
}

impl Compose for Str {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        let text = c.text(owner, field);
        c.bytes(layout, true, &text);
    }
}

impl Compose for Option<Str> {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        if c.dice.once_in(4) {
            c.length(layout, true, None);
        } else {
            Str::compose(c, owner, field, layout);
        }
    }
}

impl Compose for Bytes {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        let bytes = c.blob(owner, field);
        c.bytes(layout, false, &bytes);
    }
}

impl Compose for Option<Bytes> {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        if c.dice.once_in(40) {
            c.length(layout, false, None);
        } else {
            Bytes::compose(c, owner, field, layout);
        }
    }
}

impl Compose for Option<Records> {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        Option::<Bytes>::compose(c, owner, field, layout);
    }
}

impl<T: Compose> Compose for Vec<T> {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        c.array::<T>(owner, field, layout);
    }
}

impl<T: Compose> Compose for Option<Vec<T>> {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        if c.dice.once_in(8) {
            c.length(layout, false, None);
        } else {
            c.array::<T>(owner, field, layout);
        }
    }
}

impl<T: Structure> Compose for Option<T> {
    fn compose(c: &mut Composer<'_>, owner: &'static str, field: &'static str, layout: Layout) {
        let there = c.dice.pick(&[-1_i8, 1, 1, -2, 127]);
        c.out.extend(there.to_be_bytes());
        if there >= 0 {
            T::compose(c, owner, field, layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast::kafka::protocol::decode_request;

    use super::*;

    #[test]
    fn the_same_number_gives_the_same_frame() {
        let names = Names::default();
        for number in 0..2000 {
            let again = || frame(&mut Dice::new(7, number), &names);
            let (one, other) = (again(), again());
            assert_eq!((one.bytes, one.claims), (other.bytes, other.claims));
        }
    }

    #[test]
    fn requests_of_every_served_version_can_be_read() {
        let names = Names::default();
        for api in ApiKey::ALL {
            let mut read = std::collections::BTreeSet::new();
            for number in 0..2000 {
                let frame = request(&mut Dice::new(7, number), &names, *api);
                if let Ok((header, _)) = decode_request(frame.bytes) {
                    read.insert(header.api_version);
                }
            }
            let unread: Vec<i16> = api.served().filter(|v| !read.contains(v)).collect();
            assert!(unread.is_empty(), "{api:?} {unread:?}");
        }
    }
}
