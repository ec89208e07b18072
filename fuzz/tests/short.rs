//! Every target for a moment, without libFuzzer: its seeds, and what slips of a finger make of them. The slips follow from a
//! fixed number, so a failure comes again; the long runs are libFuzzer's, see `docs/reliability.md`.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use std::path::{Path, PathBuf};

/// Slips per seed.
const SLIPS: u64 = 300;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("seeds").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let bytes = std::fs::read(&file).expect("a seed can be read");
            (file, bytes)
        })
        .collect()
}

fn slip(bytes: &mut Vec<u8>, other: &[u8], dice: &mut SmallRng) {
    let at = dice.random_range(0..=bytes.len());
    match dice.random_range(0..6) {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] ^= 1 << dice.random_range(0..8),
        2 => bytes.insert(at, dice.next_u32() as u8),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        4 => {
            let upto = dice.random_range(at..=bytes.len());
            let piece = bytes[at..upto].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let upto = dice.random_range(0..=other.len());
            bytes.splice(at.., other[upto..].iter().copied());
        }
    }
}

#[test]
fn every_target_takes_its_seeds_and_what_slips_make_of_them() {
    let mut dice = SmallRng::seed_from_u64(4);
    for (name, target) in sojourn_fuzz::TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has seeds");
        for (file, seed) in &seeds {
            target(seed);
            for n in 0..SLIPS {
                let mut bytes = seed.clone();
                let other = &seeds[dice.random_range(0..seeds.len())].1;
                for _ in 0..dice.random_range(1..4) {
                    slip(&mut bytes, other, &mut dice);
                }
                let taken = std::panic::catch_unwind(|| target(&bytes));
                assert!(
                    taken.is_ok(),
                    "{} after slip {n}: {bytes:?}",
                    file.display()
                );
            }
        }
    }
}
