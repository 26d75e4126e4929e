//! Room `quality`: the telemetry summary, asked once a second for all sockets, sent when it changed.

use std::convert;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::room::{
    Following, OnDemand, Outlet, Room, Running, Snapshot, follow_snapshots, update_frame_of,
};
use super::sources::TelemetrySource;
use crate::auth::{Caller, Operation, Resource};

/// Who may read this may see its quality.
const TOPIC: &str = "telemetry.cleaned";

const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Quality {
    source: Arc<dyn TelemetrySource>,
    producer: OnDemand<watch::Sender<Snapshot>>,
}

impl Quality {
    pub(super) fn new(
        source: Arc<dyn TelemetrySource>,
        producer: OnDemand<watch::Sender<Snapshot>>,
    ) -> Quality {
        Quality { source, producer }
    }

    async fn produce(self: Arc<Self>, running: Running<watch::Sender<Snapshot>>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<String> = None;
        loop {
            tick.tick().await;
            if running.retire() {
                return;
            }
            let source = Arc::clone(&self.source);
            match tokio::task::spawn_blocking(move || source.summary()).await {
                Ok(Ok(summary)) if last.as_ref() != Some(&summary) => {
                    running
                        .sender()
                        .send_replace(Some(update_frame_of("quality", &summary)));
                    last = Some(summary);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(error, "the telemetry summary could not be read"),
                Err(error) => tracing::error!(%error, "reading the telemetry summary panicked"),
            }
        }
    }
}

impl Room for Quality {
    fn asks(&self) -> (Operation, Resource<'_>) {
        (Operation::Read, Resource::topic(TOPIC))
    }

    fn follow(self: Arc<Self>, _: &Caller, outlet: Outlet) -> Following {
        let room = Arc::clone(&self);
        let snapshots = self
            .producer
            .follow(|| watch::channel(None).0, |running| room.produce(running));
        Box::pin(follow_snapshots(snapshots, outlet, convert::identity))
    }
}
