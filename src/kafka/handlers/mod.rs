//! What each API does, one module per theme. Handlers hold no sockets and no state.

mod cluster;
mod configs;
mod epochs;
mod features;
mod fetch;
mod group_admin;
mod groups;
mod metadata;
mod offsets;
pub(super) mod produce;
mod producer_ids;
mod quotas;
mod topics;
mod transactions;
mod versions;

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
pub(super) use versions::unknown_api_versions;

use super::broker::{Asker, Broker};
use super::protocol::{Request, Response};

/// What an answer takes of the door's limits until it is written.
pub(super) type Held = Option<OwnedSemaphorePermit>;

/// Answers every request; a Produce only where the connection has not admitted it before its turn.
pub(super) async fn handle(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: Request,
    held: &mut Held,
) -> Response {
    match request {
        Request::ApiVersions(request) => versions::api_versions(asker, &request).into(),
        Request::Metadata(request) => metadata::metadata(broker, asker, request).await.into(),
        Request::FindCoordinator(request) => {
            metadata::find_coordinator(broker, asker, request).into()
        }
        Request::Produce(request) => produce::answer(broker, asker, request).await.into(),
        Request::Fetch(request) => fetch::fetch(broker, asker, request, held).await.into(),
        Request::ListOffsets(request) => offsets::list_offsets(broker, asker, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => epochs::offset_for_leader_epoch(broker, request)
            .await
            .into(),
        Request::InitProducerId(request) => producer_ids::init_producer_id(broker, asker, request)
            .await
            .into(),
        Request::CreateTopics(request) => {
            topics::create_topics(broker, asker, request).await.into()
        }
        Request::DeleteTopics(request) => {
            topics::delete_topics(broker, asker, request).await.into()
        }
        Request::DeleteRecords(request) => topics::delete_records(broker, request).await.into(),
        Request::JoinGroup(request) => groups::join(broker, asker, request).await.into(),
        Request::SyncGroup(request) => groups::sync(broker, request).await.into(),
        Request::Heartbeat(request) => groups::heartbeat(broker, request).into(),
        Request::LeaveGroup(request) => groups::leave(broker, asker, request).into(),
        Request::OffsetCommit(request) => groups::commit(broker, asker, request).await.into(),
        Request::OffsetFetch(request) => groups::fetch_offsets(broker, asker, request).into(),
        Request::AddPartitionsToTxn(request) => {
            transactions::add_partitions(broker, asker, request)
                .await
                .into()
        }
        Request::AddOffsetsToTxn(request) => transactions::add_offsets(broker, asker, request)
            .await
            .into(),
        Request::EndTxn(request) => transactions::end(broker, asker, request).await.into(),
        Request::WriteTxnMarkers(request) => {
            transactions::write_markers(broker, request).await.into()
        }
        Request::TxnOffsetCommit(request) => transactions::commit_offsets(broker, asker, request)
            .await
            .into(),
        Request::DescribeClientQuotas(request) => quotas::describe(broker, &request).into(),
        Request::AlterClientQuotas(request) => quotas::alter(broker, request).await.into(),
        Request::DescribeQuorum(request) => {
            features::describe_quorum(broker, asker, request).into()
        }
        Request::UpdateFeatures(request) => features::update_features(asker, request).into(),
        Request::DescribeTopicPartitions(request) => {
            features::describe_topic_partitions(broker, request).into()
        }
        Request::DescribeProducers(request) => {
            transactions::describe_producers(broker, request).into()
        }
        Request::DescribeTransactions(request) => {
            transactions::describe_transactions(broker, request).into()
        }
        Request::ListTransactions(request) => transactions::list(broker, &request).into(),
        Request::DescribeGroups(request) => {
            group_admin::describe_groups(broker, asker.version, request).into()
        }
        Request::ListGroups(request) => group_admin::list_groups(broker, &request).into(),
        Request::DeleteGroups(request) => group_admin::delete_groups(broker, request).await.into(),
        Request::OffsetDelete(request) => group_admin::delete_offsets(broker, request).await.into(),
        Request::CreatePartitions(request) => topics::create_partitions(broker, asker, request)
            .await
            .into(),
        Request::DescribeConfigs(request) => configs::describe_configs(broker, request).into(),
        Request::AlterConfigs(request) => configs::alter_configs(broker, request).await.into(),
        Request::IncrementalAlterConfigs(request) => {
            configs::incremental_alter_configs(broker, request)
                .await
                .into()
        }
        Request::ListConfigResources(request) => {
            configs::list_config_resources(broker, asker.version, &request).into()
        }
        Request::DescribeCluster(request) => {
            cluster::describe_cluster(broker, asker, &request).into()
        }
        Request::DescribeLogDirs(request) => cluster::describe_log_dirs(broker, request).into(),
        Request::ElectLeaders(request) => cluster::elect_leaders(broker, request).into(),
        Request::AlterReplicaLogDirs(request) => {
            cluster::alter_replica_log_dirs(broker, request).into()
        }
        Request::AlterPartitionReassignments(request) => {
            cluster::alter_partition_reassignments(broker, request).into()
        }
        Request::ListPartitionReassignments(_) => cluster::list_partition_reassignments().into(),
    }
}
