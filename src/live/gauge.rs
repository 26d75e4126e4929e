//! `/ws/speed`: one number per frame, as plain text, newest value wins (the speedometer's protocol).

use axum::extract::ws::WebSocket;

use super::Live;
use super::room::NOT_AUTHORIZED;
use super::socket::{Ended, Gate, Link};
use super::speed::TOPIC;
use crate::auth::{Operation, Resource, Right};

/// Serves one gauge until it or the node goes.
pub(super) async fn serve(live: &Live, socket: WebSocket, sensor_id: Option<String>, gate: Gate) {
    let mut link = Link::new(live, socket);
    let ended = drive(live, &mut link, sensor_id.as_deref(), gate)
        .await
        .err();
    link.close(ended.unwrap_or(Ended::Gone)).await;
}

async fn drive(
    live: &Live,
    link: &mut Link,
    sensor_id: Option<&str>,
    gate: Gate,
) -> Result<(), Ended> {
    let caller = link.hello(gate, false).await?;
    let right = caller.right(Operation::Read, Resource::topic(TOPIC));
    let entitled = || match right.as_ref().is_none_or(Right::holds) {
        true => Ok(()),
        false => Err(Ended::Forbidden(NOT_AUTHORIZED)),
    };
    entitled()?;
    let board = &live.shared.speeds;
    let mut latest = board.watch(sensor_id);
    loop {
        tokio::select! {
            changed = latest.changed() => {
                if changed.is_err() {
                    // The board forgot the sensor; it may speak again.
                    latest = board.watch(sensor_id);
                    continue;
                }
                let speed = latest.borrow_and_update().as_ref().map(|reading| reading.speed.to_string());
                if let Some(speed) = speed {
                    entitled()?;
                    link.send(speed.into()).await?;
                }
            }
            heard = link.hear() => drop(heard?),
        }
    }
}
