//! A client that behaves, beside those who do not: it must not notice them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::kafka::Client;
use holdfast_storage::log::Record;
use rustix::time::{ClockId, clock_gettime};

use crate::batches::BASE_TIMESTAMP_MS;

/// Its topic; not in the pool of names.
pub const TOPIC: &str = "healthy";
pub const PARTITIONS: i32 = 2;

/// Most processor time, of node and attackers together, that may go by in a round trip. Not a time by the
/// clock: on a busy machine nothing is anybody's fault.
const TRIP_CPU_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
pub struct Trips {
    pub trips: AtomicU64,
    pub slowest_ms: AtomicU64,
    pub most_cpu_ms: AtomicU64,
}

/// One round trip after the other over one connection, which it must not lose, until all is over.
pub async fn trips(address: &str, over: &AtomicBool, seen: &Trips) -> Result<(), String> {
    let client = Client::connect(address).await;
    let mut client = client.map_err(|error| error.to_string())?;
    while !over.load(Relaxed) {
        let (begun, cpu) = (Instant::now(), processor_time());
        trip(&mut client, seen.trips.load(Relaxed)).await?;
        let (took, cpu) = (begun.elapsed(), processor_time().saturating_sub(cpu));
        seen.slowest_ms.fetch_max(took.as_millis() as u64, Relaxed);
        seen.most_cpu_ms.fetch_max(cpu.as_millis() as u64, Relaxed);
        if cpu > TRIP_CPU_MAX {
            return Err(format!(
                "a round trip of {took:?}, {cpu:?} of processor time"
            ));
        }
        seen.trips.fetch_add(1, Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Of all threads of this process.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Writes a record, reads it back, and looks for its topic.
async fn trip(client: &mut Client, number: u64) -> Result<(), String> {
    let told = |error: holdfast::kafka::client::ClientError| error.to_string();
    let value = Bytes::from(number.to_string());
    let record = Record {
        value: Some(value.clone()),
        timestamp_ms: BASE_TIMESTAMP_MS,
        ..Record::default()
    };
    let written = client.produce(TOPIC, 0, vec![record]).await;
    let base = written.map_err(told)?;
    let read = client.fetch(TOPIC, 0, base, Duration::from_secs(1)).await;
    let (back, _) = read.map_err(told)?;
    let back = back.into_iter().next().and_then(|back| back.record.value);
    if back.as_ref() != Some(&value) {
        return Err(format!("record {number} came back as {back:?}"));
    }
    let topics = client.topics().await.map_err(told)?;
    match topics.iter().find(|topic| topic.name == TOPIC) {
        Some(topic) if topic.partitions.len() == PARTITIONS as usize => Ok(()),
        other => Err(format!("its topic is {other:?}")),
    }
}
