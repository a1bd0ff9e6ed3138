//! What becomes of memory between probes: given back to the system for the sake of large models, held for small ones.
//!
//! Engines in this process take and leave megabytes for each value. By default the C library hands much of that to the
//! system and asks for it again, page by page, which is a sixth of the time of a search in a model of 10 MB; what it
//! would hold on to is little beside what such a search takes at its peak anyway.

/// Blocks of fewer bytes are held; the most that the C library allows.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BLOCK: libc::c_int = 32 << 20;
/// So many free bytes are held.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE: libc::c_int = 256 << 20;

/// Gives back to the system what sessions that are gone have used, and what was read of mapped files.
pub(super) fn give_back() {
    crate::onnx::give_back();
    // SAFETY: it only gives back memory that nobody has.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From now on, holds what is freed for whoever asks next.
pub(super) fn hold() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: it sets two numbers of the allocator, once. A thread that asks for memory at that moment goes by the old number
    // or the new one; either is right.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    ONCE.call_once(|| unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE);
    });
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    ONCE.call_once(|| ());
}
