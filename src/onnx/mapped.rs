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

/// Gives the memory back in which a part of a mapped file stands; bytes of another kind stay where they are.
pub(super) fn give_back_of(part: &[u8]) {
    #[cfg(unix)]
    for map in MAPS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        let begin = (part.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize);
        if begin < map.len() && part.len() <= map.len() - begin {
            // SAFETY: as in `give_back`; the range lies in the map.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, begin, part.len()) };
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
        assert_eq!(bytes, content);
    }
}
