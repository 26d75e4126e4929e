//! What Linux says of a process. Reads `/proc`; measures nothing itself.

use std::fs;

use super::Failure;

/// `/proc` counts CPU time in these, on every architecture (proc(5): USER_HZ).
const TICKS_PER_S: f64 = 100.0;

/// Resident memory, in bytes: shared pages counted whole (RSS), and by their share (PSS).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
}

/// User and system seconds of all threads of a process since it started.
pub(crate) fn cpu_s(pid: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(')').ok_or("no name in /proc/PID/stat")?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks =
        || -> Result<f64, Failure> { Ok(fields.next().ok_or("a short /proc/PID/stat")?.parse()?) };
    Ok((ticks()? + ticks()?) / TICKS_PER_S)
}

pub(crate) fn memory(pid: u32) -> Result<Memory, Failure> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let bytes = |name: &str| -> Result<u64, Failure> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next());
        Ok(kib
            .ok_or("a line of smaps_rollup is missing")?
            .parse::<u64>()?
            * 1024)
    };
    Ok(Memory {
        rss: bytes("Rss:")?,
        pss: bytes("Pss:")?,
    })
}

/// CPU seconds of this process and, where it is known, of the broker, from a moment on.
pub(crate) struct Stopwatch {
    broker: Option<u32>,
    begun: (f64, Option<f64>),
}

impl Stopwatch {
    pub(crate) fn start(broker: Option<u32>) -> Result<Stopwatch, Failure> {
        Ok(Stopwatch {
            broker,
            begun: Stopwatch::read(broker)?,
        })
    }

    fn read(broker: Option<u32>) -> Result<(f64, Option<f64>), Failure> {
        Ok((cpu_s(std::process::id())?, broker.map(cpu_s).transpose()?))
    }

    /// This process's and the broker's.
    pub(crate) fn spent(&self) -> Result<(f64, Option<f64>), Failure> {
        let (own, broker) = Stopwatch::read(self.broker)?;
        let of_broker = broker.zip(self.begun.1).map(|(now, then)| now - then);
        Ok((own - self.begun.0, of_broker))
    }
}
