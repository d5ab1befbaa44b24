//! A number for a world, equal for worlds that will do the same: what `State` as it is would keep apart for ever.
//!
//! It is made by a serialiser and not by hand: it meets every field of core's state, also those that are still to come,
//! and knows a number's meaning by the name of its type.
//!
//! - **Instants** are told by how far they are from now, and from [`AGE_MAX`] on only as old: no limit of core's that
//!   this world reaches is longer, except the pause between two comparisons (a minute). Within one step of the grid of
//!   timers only their order counts: core compares instants with each other, and with others that are whole
//!   milliseconds later.
//! - **Revisions, leases, operations, processes, positions** are told by their rank among those that are anywhere in
//!   this world: core compares them and never counts with them. Positions differ by less than every limit of lag.
//! - **Counters and what is only told** (the next operation's number, the last decision's figures) are left out.
//!
//! Two worlds that this takes for one wrongly would cost coverage; they can never make up a violation, since every path
//! that is reported has been walked with states as they are.

use std::fmt;

use serde::ser::{self, Serialize};

use super::world::World;

/// Older than the longest limit that is waited for here: ten seconds.
const AGE_MAX: u64 = 10_100_000_000;
/// Further ahead than anything that is waited for here.
const AHEAD_MAX: u64 = 60_000_000_000;
/// A failed order is held back for a second at most.
const FAILURE_AGE_MAX: u64 = 1_100_000_000;

/// The number.
pub(super) fn fingerprint(world: &World) -> u128 {
    let mut pass = Pass::new(world, None);
    world.serialize(&mut pass).expect("everything in a world is data");
    let mut pass = Pass::new(world, Some(pass.ranks()));
    world.serialize(&mut pass).expect("everything in a world is data");
    u128::from(pass.sums[0]) << 64 | u128::from(pass.sums[1])
}

/// What a number means, by the name of its type. Nodes have instants, operations and processes of their own: nobody
/// compares one's with the other's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Plain,
    Instant,
    Revision,
    Lease,
    Op,
    Request,
    Pid,
    Lsn,
}

/// Numbers by their kind and whose they are.
type Ranks = [Vec<i64>; KINDS * OWNERS];
const KINDS: usize = 8;
/// Nobody's, and each node's.
const OWNERS: usize = 3;

fn place(kind: Kind, scope: u8) -> usize {
    kind as usize * OWNERS + usize::from(scope)
}

/// One walk through a world: the first finds out which numbers there are, the second makes the sum.
struct Pass {
    now: u64,
    grid: u64,
    ranks: Option<Ranks>,
    found: Ranks,
    sums: [u64; 2],
    kind: Kind,
    /// Whose instants these are.
    scope: u8,
    nodes: u8,
    /// The next number is a node's, whose message this is.
    addressed: bool,
    age_max: u64,
}

impl Pass {
    fn new(world: &World, ranks: Option<Ranks>) -> Self {
        let sums = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];
        Self {
            now: world.now.0,
            grid: world.grid.as_nanos() as u64,
            ranks,
            found: Ranks::default(),
            sums,
            kind: Kind::Plain,
            scope: 0,
            nodes: 0,
            addressed: false,
            age_max: AGE_MAX,
        }
    }

    fn ranks(self) -> Ranks {
        let mut found = self.found;
        for numbers in &mut found {
            numbers.sort_unstable();
            numbers.dedup();
        }
        found
    }

    fn mix(&mut self, word: u64) {
        for (sum, odd) in self.sums.iter_mut().zip([0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53_u64]) {
            let product = u128::from(*sum ^ word).wrapping_mul(u128::from(odd));
            *sum = (product as u64 ^ (product >> 64) as u64).rotate_left(23).wrapping_add(odd);
        }
    }

    fn number(&mut self, number: i128) {
        let kind = std::mem::replace(&mut self.kind, Kind::Plain);
        if std::mem::take(&mut self.addressed) {
            self.scope = 1 + number as u8;
        }
        let own = matches!(kind, Kind::Instant | Kind::Op | Kind::Request | Kind::Pid);
        let scope = if own { self.scope } else { 0 };
        match (&self.ranks, kind) {
            (None, Kind::Plain) => {}
            (None, _) => self.found[place(kind, scope)].push(number as i64),
            (Some(_), Kind::Plain) => self.mix(number as u64),
            (Some(ranks), Kind::Instant) => {
                let (distance, rank) = self.instant(ranks, number as u64, scope);
                self.mix(distance);
                self.mix(rank);
            }
            (Some(ranks), _) => {
                let (numbers, number) = (&ranks[place(kind, scope)], number as i64);
                // Nothing stays nothing.
                let rank = if number == 0 { 0 } else { 1 + numbers.partition_point(|other| *other < number) as u64 };
                self.mix(rank);
            }
        }
    }

    fn instant(&self, ranks: &Ranks, instant: u64, scope: u8) -> (u64, u64) {
        if self.now.saturating_sub(instant) >= self.age_max {
            return (u64::MAX, 0);
        }
        if instant.saturating_sub(self.now) >= AHEAD_MAX {
            return (u64::MAX - 1, 0);
        }
        let (cell, here) = (instant / self.grid, self.now / self.grid);
        let numbers = &ranks[place(Kind::Instant, scope)];
        let first = numbers.partition_point(|other| *other < (cell * self.grid) as i64);
        let mine = numbers.partition_point(|other| *other < instant as i64);
        (cell.wrapping_sub(here), (mine - first) as u64)
    }
}

/// Nothing that is in a world cannot be walked through.
#[derive(Debug)]
struct Never;

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("never")
    }
}

impl std::error::Error for Never {}

impl ser::Error for Never {
    fn custom<T: fmt::Display>(message: T) -> Self {
        unreachable!("{message}")
    }
}

/// Whether a field tells nothing of what comes.
fn is_told_only(of: &str, field: &str) -> bool {
    matches!(
        (of, field),
        ("State", "decision" | "wall" | "config")
            | ("Ops", "next" | "stale")
            | ("Store", "next_lease")
            | ("Agent", "requests")
            | ("World", "now")
    )
}

/// A structure under way: what it is, and what was in force around it.
struct Part<'a> {
    pass: &'a mut Pass,
    of: &'static str,
    scope: u8,
}

impl Part<'_> {
    fn next<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(&mut *self.pass)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Never> {
        if is_told_only(self.of, name) {
            return Ok(());
        }
        let age_max = self.pass.age_max;
        if (self.of, name) == ("Memory", "failed") {
            self.pass.age_max = FAILURE_AGE_MAX;
        }
        self.pass.addressed = self.of == "Message" && matches!(name, "node" | "from");
        value.serialize(&mut *self.pass)?;
        self.pass.age_max = age_max;
        Ok(())
    }

    fn over(self) {
        self.pass.scope = self.scope;
    }
}

macro_rules! numbers {
    ($($name:ident($type:ty))*) => {
        $(fn $name(self, number: $type) -> Result<(), Never> {
            self.number(i128::from(number));
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Pass {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Part<'a>;
    type SerializeTuple = Part<'a>;
    type SerializeTupleStruct = Part<'a>;
    type SerializeTupleVariant = Part<'a>;
    type SerializeMap = Part<'a>;
    type SerializeStruct = Part<'a>;
    type SerializeStructVariant = Part<'a>;

    numbers! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
    }

    fn serialize_f32(self, _: f32) -> Result<(), Never> {
        unreachable!("core has no floats")
    }

    fn serialize_f64(self, _: f64) -> Result<(), Never> {
        unreachable!("core has no floats")
    }

    fn serialize_char(self, c: char) -> Result<(), Never> {
        self.serialize_u32(c.into())
    }

    fn serialize_str(self, text: &str) -> Result<(), Never> {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Never> {
        if self.ranks.is_some() {
            self.mix(bytes.len() as u64);
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                self.mix(u64::from_le_bytes(word));
            }
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Never> {
        self.serialize_u8(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Never> {
        self.number(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), Never> {
        self.serialize_u32(index)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), Never> {
        self.kind = match name {
            "Instant" | "Time" => Kind::Instant,
            "Revision" => Kind::Revision,
            "LeaseId" => Kind::Lease,
            "OpId" => Kind::Op,
            "RequestId" => Kind::Request,
            "Pid" => Kind::Pid,
            "Lsn" => Kind::Lsn,
            _ => Kind::Plain,
        };
        value.serialize(&mut *self)?;
        self.kind = Kind::Plain;
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        self.number(index.into());
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Part<'a>, Never> {
        self.number(len.unwrap_or_default() as i128);
        self.serialize_struct("", 0)
    }

    fn serialize_tuple(self, _: usize) -> Result<Part<'a>, Never> {
        self.serialize_struct("", 0)
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Part<'a>, Never> {
        self.serialize_struct(name, 0)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Part<'a>, Never> {
        self.number(index.into());
        self.serialize_struct("", 0)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Part<'a>, Never> {
        self.serialize_seq(len)
    }

    fn serialize_struct(self, of: &'static str, _: usize) -> Result<Part<'a>, Never> {
        let scope = self.scope;
        if of == "Node" {
            self.nodes += 1;
            self.scope = self.nodes;
        }
        Ok(Part { pass: self, of, scope })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Part<'a>, Never> {
        self.number(index.into());
        self.serialize_struct(name, 0)
    }
}

impl ser::SerializeSeq for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.next(value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}

impl ser::SerializeTuple for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.next(value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.next(value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}

impl ser::SerializeTupleVariant for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.next(value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}

impl ser::SerializeMap for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Never> {
        self.next(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.next(value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}

impl ser::SerializeStruct for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Never> {
        self.field(name, value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}

impl ser::SerializeStructVariant for Part<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Never> {
        self.field(name, value)
    }
    fn end(self) -> Result<(), Never> {
        self.over();
        Ok(())
    }
}
