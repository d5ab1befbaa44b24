//! `pg_control` as a disk gives it back: only what has its checksum is believed.

use matriarch::postgres::control_data::parse;

/// Where the checksum is, by version.
const VERSIONS: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

/// The target: which version, which bit is flipped, and the bytes.
pub fn target(data: &[u8]) -> String {
    assert!(parse(data).is_err() || data.len() > 288, "a file that is too short is believed");
    let [version, flipped, _, fields @ ..] = data else { return "too short".into() };
    let (version, sum_at) = VERSIONS[usize::from(*version) % VERSIONS.len()];
    let mut file = vec![0; 8192];
    let given = fields.len().min(sum_at);
    file[..given].copy_from_slice(&fields[..given]);
    file[8..12].copy_from_slice(&version.to_ne_bytes());
    let sum = crc32c(&file[..sum_at]);
    file[sum_at..sum_at + 4].copy_from_slice(&sum.to_ne_bytes());
    let taken = match parse(&file) {
        Ok(control) => {
            assert_eq!(control.version, version);
            assert!(control.timeline() >= control.checkpoint_timeline);
            format!("version {version}, {:?}, timeline {}", control.state, control.timeline())
        }
        Err(why) => {
            assert!(why.contains("cluster state"), "the checksum is right, and yet: {why}");
            "no state of a cluster".into()
        }
    };
    let bit = usize::from(u16::from_be_bytes([data[1], data[2]])) % (sum_at * 8);
    file[bit / 8] ^= 1 << (bit % 8);
    assert!(parse(&file).is_err(), "bit {bit} of {version} is flipped ({flipped}) and the file believed");
    taken
}

/// CRC-32C, as PostgreSQL computes it (`pg_crc32c_sb8.c`), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}
