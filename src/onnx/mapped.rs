//! Files that are mapped into memory, and giving back what was read of them.
//!
//! What is read of a mapped file counts as the process's memory until somebody else needs it. A search that looks at a part
//! of a large model at a time says when it is done with one.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use memmap2::Mmap;

/// The maps that somebody still reads.
static MAPS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes of a map, which lives as long as they do.
pub(super) fn bytes(map: Mmap) -> Bytes {
    let map = Arc::new(map);
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|known| known.strong_count() > 0);
    maps.push(Arc::downgrade(&map));
    drop(maps);
    Bytes::from_owner(Shared(map))
}

/// Gives the memory back in which mapped files stand. Nothing is lost: what is read again comes from the file again.
pub fn give_back() {
    #[cfg(unix)]
    for map in MAPS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        // SAFETY: the map is a read-only view of a file, so what is dropped is read from the file again, the same bytes.
        // It is advice: what the system makes of it changes nothing but memory.
        let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// Larger parts are not brought: their first pages might be gone again before anyone reads them.
#[cfg(target_os = "linux")]
const BROUGHT: usize = 1 << 30;

/// Brings a part of a mapped file into memory in one step. It is advice: where the system cannot, pages come when they are
/// read.
#[cfg(target_os = "linux")]
pub(super) fn bring(part: &[u8]) {
    if part.len() <= BROUGHT {
        on_map(part, |map, begin| drop(map.advise_range(memmap2::Advice::PopulateRead, begin, part.len())));
    }
}

/// Brings nothing: how is only known on Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn bring(_part: &[u8]) {}

/// Gives the memory back in which a part of a mapped file stands; bytes of another kind stay where they are.
#[cfg(unix)]
pub(super) fn give_back_of(part: &[u8]) {
    on_map(part, |map, begin| {
        // SAFETY: as in `give_back`; the range lies in the map.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, begin, part.len()) };
    });
}

/// Gives nothing back: how is only known on Unix.
#[cfg(not(unix))]
pub(super) fn give_back_of(_part: &[u8]) {}

/// Does something to the map in which a part of a mapped file stands, with the place where it begins there.
#[cfg(unix)]
fn on_map(part: &[u8], act: impl Fn(&Mmap, usize)) {
    let maps: Vec<Arc<Mmap>> =
        MAPS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for map in maps {
        let begin = (part.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize);
        if begin < map.len() && part.len() <= map.len() - begin {
            act(&map, begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_reads_the_same_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(file.path(), &content).unwrap();
        let bytes = crate::onnx::read::map(file.path()).unwrap();
        let part = bytes.slice(4096..8192);
        assert_eq!(bytes, content);
        give_back();
        assert_eq!(part, content[4096..8192]);
        assert_eq!(bytes, content);
        give_back_of(&bytes[8192..100_000]);
        give_back_of(b"not mapped");
        bring(&bytes[200_000..]);
        bring(b"not mapped");
        assert_eq!(bytes, content);
    }
}
