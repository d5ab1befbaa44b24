//! Effects as bytes: little-endian numbers, and byte strings after their length.

use etcd_client::proto::PbKeyValue;

use super::state::Effect;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const GRANT: u8 = 3;
const REVOKE: u8 = 4;
const TERM: u8 = 5;

/// Writes numbers and byte strings.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn effects(&mut self, effects: &[Effect]) {
        self.u64(effects.len() as u64);
        for effect in effects {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Put(kv) => {
                self.0.push(PUT);
                self.bytes(&kv.key);
                self.bytes(&kv.value);
                for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
                    self.i64(number);
                }
            }
            Effect::Delete { key, revision } => {
                self.0.push(DELETE);
                self.bytes(key);
                self.i64(*revision);
            }
            Effect::Grant { id, ttl_seconds } => {
                self.0.push(GRANT);
                self.i64(*id);
                self.i64(*ttl_seconds);
            }
            Effect::Revoke { id } => {
                self.0.push(REVOKE);
                self.i64(*id);
            }
            Effect::Term(term) => {
                self.0.push(TERM);
                self.u64(*term);
            }
        }
    }
}

/// Reads what [`Writer`] wrote; `None` where the bytes end early or mean nothing.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.u64().map(u64::cast_signed)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value.to_vec())
    }

    pub(super) fn effects(&mut self) -> Option<Vec<Effect>> {
        let count = self.u64()?;
        (0..count).map(|_| self.effect()).collect()
    }

    fn effect(&mut self) -> Option<Effect> {
        let (kind, rest) = self.0.split_first()?;
        self.0 = rest;
        match *kind {
            PUT => Some(Effect::Put(PbKeyValue {
                key: self.bytes()?,
                value: self.bytes()?,
                create_revision: self.i64()?,
                mod_revision: self.i64()?,
                version: self.i64()?,
                lease: self.i64()?,
            })),
            DELETE => Some(Effect::Delete { key: self.bytes()?, revision: self.i64()? }),
            GRANT => Some(Effect::Grant { id: self.i64()?, ttl_seconds: self.i64()? }),
            REVOKE => Some(Effect::Revoke { id: self.i64()? }),
            TERM => Some(Effect::Term(self.u64()?)),
            _ => None,
        }
    }
}

/// CRC-32 as in IEEE 802.3 (the polynomial of zlib and gzip).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn crc32_of_the_standard_check_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    fn effect() -> impl Strategy<Value = Effect> {
        let kv = (any::<Vec<u8>>(), any::<Vec<u8>>(), any::<[i64; 4]>()).prop_map(|(key, value, numbers)| {
            let [create_revision, mod_revision, version, lease] = numbers;
            Effect::Put(PbKeyValue { key, value, create_revision, mod_revision, version, lease })
        });
        prop_oneof![
            kv,
            (any::<Vec<u8>>(), any::<i64>()).prop_map(|(key, revision)| Effect::Delete { key, revision }),
            (any::<i64>(), any::<i64>()).prop_map(|(id, ttl_seconds)| Effect::Grant { id, ttl_seconds }),
            any::<i64>().prop_map(|id| Effect::Revoke { id }),
            any::<u64>().prop_map(Effect::Term),
        ]
    }

    proptest! {
        #[test]
        fn effects_come_back_as_written(effects in proptest::collection::vec(effect(), 0..8)) {
            let mut writer = Writer::default();
            writer.effects(&effects);
            let mut reader = Reader(&writer.0);
            prop_assert_eq!(reader.effects(), Some(effects));
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let _ = Reader(&bytes).effects();
        }
    }
}
