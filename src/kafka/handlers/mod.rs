//! What each API does, one module per theme. Handlers hold no sockets and no state.

mod acls;
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
mod sasl;
mod scram_users;
mod topics;
mod transactions;
mod versions;

use std::sync::Arc;

pub(super) use sasl::illegal_sasl_state;
use tokio::sync::OwnedSemaphorePermit;
pub(super) use versions::{api_versions, unknown_api_versions};

use super::broker::{Asker, Broker};
use super::protocol::{ApiKey, Request, Response};

/// What an answer takes of the door's limits until it is written.
pub(super) type Held = Option<OwnedSemaphorePermit>;

/// Answers every request; a Produce only where the connection has not admitted it before its turn.
pub(super) async fn handle(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: Request,
    held: &mut Held,
) -> Response {
    tracing::trace!(api = asker.api.name(), principal = %asker.principal, "Kafka request");
    match request {
        Request::SaslHandshake(_) => illegal_sasl_state(ApiKey::SaslHandshake),
        Request::SaslAuthenticate(_) => illegal_sasl_state(ApiKey::SaslAuthenticate),
        Request::ApiVersions(request) => versions::api_versions(asker, &request).into(),
        Request::Metadata(request) => metadata::metadata(broker, asker, request).await.into(),
        Request::FindCoordinator(request) => {
            metadata::find_coordinator(broker, asker, request).into()
        }
        Request::Produce(request) => produce::answer(broker, asker, request).await.into(),
        Request::Fetch(request) => fetch::fetch(broker, asker, request, held).await.into(),
        Request::ListOffsets(request) => offsets::list_offsets(broker, asker, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => {
            epochs::offset_for_leader_epoch(broker, asker, request)
                .await
                .into()
        }
        Request::InitProducerId(request) => producer_ids::init_producer_id(broker, asker, request)
            .await
            .into(),
        Request::CreateTopics(request) => {
            topics::create_topics(broker, asker, request).await.into()
        }
        Request::DeleteTopics(request) => {
            topics::delete_topics(broker, asker, request).await.into()
        }
        Request::DeleteRecords(request) => {
            topics::delete_records(broker, asker, request).await.into()
        }
        Request::JoinGroup(request) => groups::join(broker, asker, request).await.into(),
        Request::SyncGroup(request) => groups::sync(broker, asker, request).await.into(),
        Request::Heartbeat(request) => groups::heartbeat(broker, asker, request).into(),
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
        Request::WriteTxnMarkers(request) => transactions::write_markers(broker, asker, request)
            .await
            .into(),
        Request::TxnOffsetCommit(request) => transactions::commit_offsets(broker, asker, request)
            .await
            .into(),
        Request::DescribeClientQuotas(request) => quotas::describe(broker, asker, &request).into(),
        Request::AlterClientQuotas(request) => quotas::alter(broker, asker, request).await.into(),
        Request::DescribeQuorum(request) => {
            features::describe_quorum(broker, asker, request).into()
        }
        Request::UpdateFeatures(request) => {
            features::update_features(broker, asker, request).into()
        }
        Request::DescribeTopicPartitions(request) => {
            features::describe_topic_partitions(broker, asker, request).into()
        }
        Request::DescribeProducers(request) => {
            transactions::describe_producers(broker, asker, request).into()
        }
        Request::DescribeTransactions(request) => {
            transactions::describe_transactions(broker, asker, request).into()
        }
        Request::ListTransactions(request) => transactions::list(broker, asker, &request).into(),
        Request::DescribeGroups(request) => {
            group_admin::describe_groups(broker, asker, request).into()
        }
        Request::ListGroups(request) => group_admin::list_groups(broker, asker, &request).into(),
        Request::DeleteGroups(request) => group_admin::delete_groups(broker, asker, request)
            .await
            .into(),
        Request::OffsetDelete(request) => group_admin::delete_offsets(broker, asker, request)
            .await
            .into(),
        Request::CreatePartitions(request) => topics::create_partitions(broker, asker, request)
            .await
            .into(),
        Request::DescribeAcls(request) => acls::describe(broker, asker, &request).into(),
        Request::CreateAcls(request) => acls::create(broker, asker, request).await.into(),
        Request::DeleteAcls(request) => acls::delete(broker, asker, request).await.into(),
        Request::DescribeUserScramCredentials(request) => {
            scram_users::describe(broker, asker, request).into()
        }
        Request::AlterUserScramCredentials(request) => {
            scram_users::alter(broker, asker, request).await.into()
        }
        Request::DescribeConfigs(request) => {
            configs::describe_configs(broker, asker, request).into()
        }
        Request::AlterConfigs(request) => {
            configs::alter_configs(broker, asker, request).await.into()
        }
        Request::IncrementalAlterConfigs(request) => {
            configs::incremental_alter_configs(broker, asker, request)
                .await
                .into()
        }
        Request::ListConfigResources(request) => {
            configs::list_config_resources(broker, asker, &request).into()
        }
        Request::DescribeCluster(request) => {
            cluster::describe_cluster(broker, asker, &request).into()
        }
        Request::DescribeLogDirs(request) => {
            cluster::describe_log_dirs(broker, asker, request).into()
        }
        Request::ElectLeaders(request) => cluster::elect_leaders(broker, asker, request).into(),
        Request::AlterReplicaLogDirs(request) => {
            cluster::alter_replica_log_dirs(broker, asker, request).into()
        }
        Request::AlterPartitionReassignments(request) => {
            cluster::alter_partition_reassignments(broker, asker, request).into()
        }
        Request::ListPartitionReassignments(_) => {
            cluster::list_partition_reassignments(broker, asker).into()
        }
    }
}
