//! What the machine has, where a default is sized by it.

use std::fs;

/// Memory that this process may use: the machine's, or less where its control group is bounded.
/// `None` where neither can be told.
pub fn memory_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo.as_deref().and_then(mem_total);
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok();
    let group = cgroup.as_deref().and_then(unified_group);
    let bound = group.and_then(bound_of);
    machine.into_iter().chain(bound).min()
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn unified_group(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// The least bound of a control group and those above it.
fn bound_of(group: &str) -> Option<u64> {
    let mut bounds = Vec::new();
    let mut path = std::path::Path::new("/sys/fs/cgroup").join(group);
    while path.starts_with("/sys/fs/cgroup") {
        // "max", and no file in the root, are no bound.
        let text = fs::read_to_string(path.join("memory.max")).unwrap_or_default();
        bounds.extend(text.trim().parse::<u64>());
        path.pop();
    }
    bounds.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let meminfo = "MemFree:  1 kB\nMemTotal:       24674608 kB\nMemAvailable: 5 kB\n";
        assert_eq!(mem_total(meminfo), Some(24_674_608 * 1024));
        assert_eq!(mem_total("MemTotal: many\n"), None);
        let cgroup = "12:cpu:/a\n0::/system.slice/holdfast.service\n";
        assert_eq!(unified_group(cgroup), Some("system.slice/holdfast.service"));
        assert!(memory_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }
}
