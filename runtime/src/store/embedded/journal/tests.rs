use etcd_client::proto::PbKeyValue;
use tempfile::TempDir;

use super::*;

fn put(key: &str, revision: i64, lease: i64) -> Effect {
    let (key, value) = (key.into(), revision.to_string().into());
    Effect::Put(PbKeyValue { key, value, create_revision: revision, mod_revision: revision, version: 1, lease })
}

/// A directory to which three frames were committed after its opening, and the state they made.
fn filled() -> (TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let Opened { mut journal, mut state, .. } = Journal::open(dir.path(), Instant::ZERO).unwrap();
    for effects in [
        vec![Effect::Grant { id: 7, ttl_seconds: 5 }, put("a", 2, 7)],
        vec![put("b", 3, 0), put("c", 3, 7)],
        vec![Effect::Delete { key: "b".into(), revision: 4 }],
    ] {
        journal.commit(&state, &effects).unwrap();
        for effect in &effects {
            state.apply(effect, Instant::ZERO);
        }
    }
    (dir, state)
}

fn reopen(dir: &TempDir) -> State {
    Journal::open(dir.path(), Instant::ZERO).unwrap().state
}

/// All but the count of runs.
fn same(mut a: State, b: &State) -> bool {
    a.raft_term = b.raft_term;
    a == *b
}

#[test]
fn a_restart_loses_nothing_and_counts_the_run() {
    let (dir, state) = filled();
    let again = reopen(&dir);
    assert_eq!(again.raft_term, state.raft_term + 1);
    assert!(same(again, &state));
}

#[test]
fn every_lease_has_its_full_time_after_a_restart() {
    let (dir, _) = filled();
    let now = Instant(1_000_000_000_000);
    let opened = Journal::open(dir.path(), now).unwrap();
    assert_eq!(opened.state.earliest_deadline(), Some(now + std::time::Duration::from_secs(5)));
}

#[test]
fn folding_keeps_the_state_and_what_comes_after() {
    let (dir, mut state) = filled();
    {
        let mut opened = Journal::open(dir.path(), Instant::ZERO).unwrap();
        opened.journal.fold(&opened.state).unwrap();
        let effect = put("d", 5, 0);
        opened.journal.commit(&opened.state, std::slice::from_ref(&effect)).unwrap();
        state.apply(&effect, Instant::ZERO);
    }
    assert!(same(reopen(&dir), &state));
}

#[test]
fn frames_that_a_snapshot_contains_are_not_applied_again() {
    let (dir, state) = filled();
    let journal = fs::read(dir.path().join(JOURNAL)).unwrap();
    {
        let mut opened = Journal::open(dir.path(), Instant::ZERO).unwrap();
        opened.journal.fold(&opened.state).unwrap();
    }
    // As after a crash between the rename and the emptying.
    fs::write(dir.path().join(JOURNAL), journal).unwrap();
    assert!(same(reopen(&dir), &state));
}

#[test]
fn a_write_torn_anywhere_is_cut_and_the_rest_kept() {
    let (dir, _) = filled();
    let path = dir.path().join(JOURNAL);
    let whole = fs::read(&path).unwrap();
    let mut ends = vec![0];
    while let Some((_, payload)) = whole_frame(&whole[ends[ends.len() - 1]..]) {
        ends.push(ends[ends.len() - 1] + HEAD_BYTES + payload.len());
    }
    let last = ends[ends.len() - 2];
    for length in last + 1..whole.len() {
        for fill in [0, 8] {
            let mut torn = whole[..length].to_vec();
            torn.extend(std::iter::repeat_n(0xAA, fill));
            fs::write(&path, torn).unwrap();
            let state = reopen(&dir);
            assert!(state.keys.contains_key(b"b".as_slice()), "the deletion was torn at {length}");
            assert_eq!(state.revision, 3);
        }
    }
}

#[test]
fn damage_in_the_middle_is_named_and_nothing_is_touched() {
    let (dir, _) = filled();
    let path = dir.path().join(JOURNAL);
    let whole = fs::read(&path).unwrap();
    let first = HEAD_BYTES + whole_frame(&whole).unwrap().1.len();
    for flipped in 0..first {
        let mut bytes = whole.clone();
        bytes[flipped] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let Err(error) = Journal::open(dir.path(), Instant::ZERO) else { panic!("byte {flipped} was not noticed") };
        assert!(error.to_string().contains("journal is damaged at byte 0,"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_snapshot_is_named() {
    let (dir, _) = filled();
    let path = dir.path().join(SNAPSHOT);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let Err(error) = Journal::open(dir.path(), Instant::ZERO) else { panic!("not noticed") };
    assert!(error.to_string().contains("snapshot is damaged at byte 0"), "{error}");
}

#[test]
fn a_lost_snapshot_is_not_an_empty_store() {
    let (dir, _) = filled();
    fs::remove_file(dir.path().join(SNAPSHOT)).unwrap();
    let Err(error) = Journal::open(dir.path(), Instant::ZERO) else { panic!("not noticed") };
    assert!(error.to_string().contains("is missing while there is a journal"), "{error}");
}

#[test]
fn a_second_store_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path(), Instant::ZERO).unwrap();
    let Err(error) = Journal::open(dir.path(), Instant::ZERO) else { panic!("not refused") };
    assert!(error.to_string().contains("another store is running on"), "{error}");
}

#[test]
fn a_full_disk_refuses_and_a_later_write_repairs() {
    let (dir, state) = filled();
    {
        let mut opened = Journal::open(dir.path(), Instant::ZERO).unwrap();
        let good = opened.journal.fill_disk().unwrap();
        let error = opened.journal.commit(&opened.state, &[put("x", 5, 0)]).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("nothing was changed") && text.contains("No space left"), "{text}");
        opened.journal.file = good;
        opened.journal.commit(&opened.state, &[put("y", 5, 0)]).unwrap();
    }
    let again = reopen(&dir);
    assert!(!again.keys.contains_key(b"x".as_slice()) && again.keys.contains_key(b"y".as_slice()));
    assert_eq!(again.keys.len(), state.keys.len() + 1);
}
