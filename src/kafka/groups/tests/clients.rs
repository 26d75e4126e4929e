//! Whole clients over the coordinator, as tasks: every group settles, whatever they do to it.

use super::*;
use crate::kafka::groups::simulation::Dice;

const HISTORIES: u64 = 150;
const CLIENTS: usize = 6;

/// A client that behaves, apart from crashing now and then, until `calm`; then it only behaves.
async fn client(coordinator: Coordinator, seed: u64, calm: Instant, end: Instant) -> (i32, String) {
    let mut dice = Dice::new(seed);
    let mut member_id = String::new();
    let mut last = (0, String::new());
    while Instant::now() < end {
        if Instant::now() < calm && dice.one_in(4) {
            // Crashes, or hangs longer than its session.
            member_id.clear();
            pause(&mut dice, 12_000).await;
        }
        let request = JoinRequest {
            member_id: member_id.clone(),
            requires_member_id: dice.one_in(2),
            ..newcomer("m")
        };
        let joining = coordinator.join(request);
        let joined = if Instant::now() < calm && dice.one_in(5) {
            match tokio::time::timeout(Duration::from_millis(dice.below(4_000)), joining).await {
                Ok(joined) => joined,
                Err(_hung_up) => continue,
            }
        } else {
            joining.await
        };
        match joined {
            Ok(joined) => {
                assert!(joined.generation_id >= 1);
                member_id.clone_from(&joined.member_id);
                last = member(&coordinator, &joined, &mut dice, calm, end)
                    .await
                    .unwrap_or(last);
            }
            Err(GroupError::MemberIdRequired { member_id: given }) => member_id = given,
            Err(GroupError::RebalanceInProgress) => {}
            Err(GroupError::UnknownMemberId) => member_id.clear(),
            Err(error) => panic!("{error}"),
        }
    }
    last
}

/// One generation of a member: its share, or `None` where it got none.
async fn member(
    coordinator: &Coordinator,
    joined: &JoinResponse,
    dice: &mut Dice,
    calm: Instant,
    end: Instant,
) -> Option<(i32, String)> {
    let shares: Vec<(String, String)> = joined
        .members
        .iter()
        .map(|m| {
            (
                m.member_id.clone(),
                format!("{}:{}", joined.generation_id, m.member_id),
            )
        })
        .collect();
    let shares: Vec<(&str, &str)> = shares
        .iter()
        .map(|(m, s)| (m.as_str(), s.as_str()))
        .collect();
    if Instant::now() < calm {
        pause(dice, 2_000).await;
    }
    let share = coordinator
        .sync(sync_of(joined, &shares))
        .await
        .ok()?
        .assignment;
    let expected = format!("{}:{}", joined.generation_id, joined.member_id);
    assert_eq!(share, expected.as_bytes());
    while Instant::now() < end {
        pause(dice, 3_000).await;
        if Instant::now() < calm && dice.one_in(6) {
            if dice.one_in(2) {
                drop(leave(coordinator, &joined.member_id));
            }
            return None;
        }
        if coordinator
            .heartbeat(&beat(joined.generation_id, &joined.member_id))
            .is_err()
        {
            return None;
        }
    }
    Some((joined.generation_id, joined.member_id.clone()))
}

async fn pause(dice: &mut Dice, ms_max: u64) {
    tokio::time::sleep(Duration::from_millis(dice.below(ms_max))).await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_calm_down_end_in_one_stable_generation() {
    for seed in 0..HISTORIES {
        let coordinator = coordinator();
        let calm = Instant::now() + Duration::from_secs(120);
        let end = calm + Duration::from_secs(120);
        let mut tasks = Vec::new();
        for i in 0..CLIENTS {
            let own_seed = seed * 1_000 + i as u64;
            tasks.push(tokio::spawn(client(
                coordinator.clone(),
                own_seed,
                calm,
                end,
            )));
        }
        let mut last = Vec::new();
        for task in tasks {
            last.push(task.await.unwrap());
        }
        let generation = last[0].0;
        assert!(generation >= 1, "seed {seed}");
        assert!(
            last.iter().all(|(g, _)| *g == generation),
            "seed {seed}: {last:?}"
        );
        let group = coordinator.describe(GROUP).unwrap();
        assert_eq!(group.state, GroupState::Stable, "seed {seed}");
        assert_eq!(
            group.members.len(),
            CLIENTS,
            "seed {seed}: {:?}",
            group.members
        );
    }
}
