//! Who may do what: which operation on which kind of resource each API asks for, as Kafka's brokers do.
//!
//! [`needs`] is the table. Handlers ask through an [`Access`], which in tests refuses to be asked for
//! anything that the table does not name; the table names every API, or it does not compile. The rules
//! themselves are [`Auth`]'s. Without an authorizer every answer is yes, found out with one comparison.

use std::sync::Arc;

use holdfast_storage::log::{Partition, TOPIC_NAME_BYTES_MAX, Topic};

use super::broker::{Asker, Broker, TopicRef};
use super::protocol::{ApiKey, ErrorCode};
use crate::auth::{Auth, Principal, Resource};

pub(super) use crate::auth::{Operation, ResourceType};

use Operation::{
    Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite,
    Read, Write,
};
use ResourceType::{Cluster, Group, TransactionalId};

/// A right, and the kind of resource that it is a right to.
type Need = (Operation, ResourceType);

/// What an API may ask for; which of it, and of which resource, its handler knows.
const fn needs(api: ApiKey) -> &'static [Need] {
    const TOPIC: ResourceType = ResourceType::Topic;
    match api {
        ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => &[],
        ApiKey::Metadata => &[
            (Describe, TOPIC),
            (Create, Cluster),
            (Create, TOPIC),
            (Describe, Cluster),
        ],
        ApiKey::FindCoordinator => &[(Describe, Group), (Describe, TransactionalId)],

        ApiKey::Produce => &[(Write, TransactionalId), (Write, TOPIC)],
        ApiKey::Fetch => &[(Read, TOPIC), (ClusterAction, Cluster)],
        ApiKey::ListOffsets => &[(Describe, TOPIC)],
        ApiKey::OffsetForLeaderEpoch => &[(ClusterAction, Cluster), (Describe, TOPIC)],

        ApiKey::InitProducerId => &[
            (Write, TransactionalId),
            (IdempotentWrite, Cluster),
            (Write, TOPIC),
        ],
        // From version 4 on it is brokers who ask.
        ApiKey::AddPartitionsToTxn => &[
            (ClusterAction, Cluster),
            (Write, TransactionalId),
            (Write, TOPIC),
        ],
        ApiKey::AddOffsetsToTxn => &[(Write, TransactionalId), (Read, Group)],
        ApiKey::EndTxn => &[(Write, TransactionalId)],
        ApiKey::TxnOffsetCommit => &[(Write, TransactionalId), (Read, Group), (Read, TOPIC)],
        ApiKey::WriteTxnMarkers => &[(Alter, Cluster), (ClusterAction, Cluster)],
        ApiKey::DescribeProducers => &[(Read, TOPIC)],
        ApiKey::DescribeTransactions => &[(Describe, TransactionalId), (Describe, TOPIC)],
        ApiKey::ListTransactions => &[(Describe, TransactionalId)],

        ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::Heartbeat | ApiKey::LeaveGroup => {
            &[(Read, Group)]
        }
        ApiKey::OffsetCommit => &[(Read, Group), (Read, TOPIC)],
        ApiKey::OffsetFetch => &[(Describe, Group), (Describe, TOPIC)],
        ApiKey::OffsetDelete => &[(Delete, Group), (Read, TOPIC)],
        ApiKey::DescribeGroups => &[(Describe, Group)],
        ApiKey::ListGroups => &[(Describe, Cluster), (Describe, Group)],
        ApiKey::DeleteGroups => &[(Delete, Group)],

        ApiKey::CreateTopics => &[(Create, Cluster), (Create, TOPIC), (DescribeConfigs, TOPIC)],
        ApiKey::DeleteTopics => &[(Describe, TOPIC), (Delete, TOPIC)],
        ApiKey::DeleteRecords => &[(Delete, TOPIC)],
        ApiKey::CreatePartitions => &[(Alter, TOPIC)],

        ApiKey::DescribeConfigs => &[(DescribeConfigs, TOPIC), (DescribeConfigs, Cluster)],
        ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            &[(AlterConfigs, TOPIC), (AlterConfigs, Cluster)]
        }
        ApiKey::ListConfigResources | ApiKey::DescribeClientQuotas => &[(DescribeConfigs, Cluster)],
        ApiKey::AlterClientQuotas => &[(AlterConfigs, Cluster)],
        ApiKey::DescribeTopicPartitions => &[(Describe, TOPIC)],

        // Whoever is let in may see the brokers; the rights that are shown are those they have.
        ApiKey::DescribeCluster => &[(Describe, Cluster)],
        ApiKey::DescribeLogDirs | ApiKey::ListPartitionReassignments | ApiKey::DescribeQuorum => {
            &[(Describe, Cluster)]
        }
        ApiKey::DescribeAcls | ApiKey::DescribeUserScramCredentials => &[(Describe, Cluster)],
        ApiKey::CreateAcls | ApiKey::DeleteAcls | ApiKey::AlterUserScramCredentials => {
            &[(Alter, Cluster)]
        }
        ApiKey::AlterReplicaLogDirs
        | ApiKey::UpdateFeatures
        | ApiKey::ElectLeaders
        | ApiKey::AlterPartitionReassignments => &[(Alter, Cluster)],
    }
}

/// What one asker may do.
pub(super) struct Access<'a> {
    broker: &'a Broker,
    principal: &'a Principal,
    api: ApiKey,
}

impl Broker {
    pub(super) fn access<'a>(&'a self, asker: &'a Asker) -> Access<'a> {
        Access {
            broker: self,
            principal: &asker.principal,
            api: asker.api,
        }
    }
}

impl Access<'_> {
    fn auth(&self) -> &Auth {
        &self.broker.auth
    }

    fn has(&self, operation: Operation, resource: Resource<'_>) -> bool {
        debug_assert!(
            needs(self.api).contains(&(operation, resource.resource_type)),
            "{:?} of {:?} is not in the table for {:?}",
            operation,
            resource.resource_type,
            self.api
        );
        let has = self.auth().authorize(self.principal, operation, resource);
        if !has {
            tracing::debug!(
                principal = %self.principal,
                peer = %self.principal.peer(),
                api = self.api.name(),
                ?operation,
                resource_type = ?resource.resource_type,
                resource = resource.name,
                "denied"
            );
        }
        has
    }

    pub(super) fn to_topic(&self, operation: Operation, name: &str) -> Result<(), ErrorCode> {
        let has = self.has(operation, Resource::topic(name));
        has.then_some(()).ok_or(ErrorCode::TopicAuthorizationFailed)
    }

    pub(super) fn to_group(&self, operation: Operation, name: &str) -> Result<(), ErrorCode> {
        let has = self.has(operation, Resource::group(name));
        has.then_some(()).ok_or(ErrorCode::GroupAuthorizationFailed)
    }

    pub(super) fn to_cluster(&self, operation: Operation) -> Result<(), ErrorCode> {
        let has = self.has(operation, Resource::CLUSTER);
        has.then_some(())
            .ok_or(ErrorCode::ClusterAuthorizationFailed)
    }

    pub(super) fn to_transactional_id(
        &self,
        operation: Operation,
        id: &str,
    ) -> Result<(), ErrorCode> {
        let has = self.has(operation, Resource::transactional_id(id));
        has.then_some(())
            .ok_or(ErrorCode::TransactionalIdAuthorizationFailed)
    }

    /// Whether there is any topic that this may be done to.
    pub(super) fn to_some_topic(&self, operation: Operation) -> bool {
        let topic = ResourceType::Topic;
        debug_assert!(needs(self.api).contains(&(operation, topic)));
        self.auth()
            .authorize_by_resource_type(self.principal, operation, topic)
    }

    /// A topic that this may be done to. Whoever may not learns nothing of a name; ids are no secrets.
    pub(super) fn topic(
        &self,
        operation: Operation,
        topic: &TopicRef,
    ) -> Result<Arc<Topic>, ErrorCode> {
        match topic {
            // Nobody's, so that no rule is asked about it.
            TopicRef::Name(name) if name.as_str().len() > TOPIC_NAME_BYTES_MAX => {
                Err(topic.unknown())
            }
            TopicRef::Name(name) => {
                self.to_topic(operation, name.as_str())?;
                self.broker.topic(topic)
            }
            TopicRef::Id(_) => {
                let topic = self.broker.topic(topic)?;
                self.to_topic(operation, topic.name())?;
                Ok(topic)
            }
        }
    }

    /// As [`Access::topic`].
    pub(super) fn partition(
        &self,
        operation: Operation,
        topic: &TopicRef,
        index: i32,
    ) -> Result<Arc<Partition>, ErrorCode> {
        let topic = self.topic(operation, topic)?;
        let partition = topic.partition(index).cloned();
        partition.ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// All that may be done to a resource, as Kafka's set of bits (KIP-430).
    pub(super) fn operations(&self, resource: Resource<'_>) -> i32 {
        let possible = possible(resource.resource_type).iter();
        let mine = possible
            .filter(|operation| self.auth().authorize(self.principal, **operation, resource));
        mine.fold(0, |bits, operation| bits | 1 << wire_code(*operation))
    }
}

/// What can be done at all to resources of a type.
const fn possible(resource_type: ResourceType) -> &'static [Operation] {
    match resource_type {
        ResourceType::Topic => &[
            Read,
            Write,
            Create,
            Delete,
            Alter,
            Describe,
            DescribeConfigs,
            AlterConfigs,
        ],
        Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
        Cluster => &[
            Create,
            Alter,
            Describe,
            ClusterAction,
            DescribeConfigs,
            AlterConfigs,
            IdempotentWrite,
        ],
        TransactionalId => &[Describe, Write],
        ResourceType::DelegationToken => &[Describe],
        ResourceType::User => &[Operation::CreateTokens, Operation::DescribeTokens],
    }
}

/// Kafka's number of an operation.
pub(super) const fn wire_code(operation: Operation) -> i8 {
    match operation {
        Operation::All => 2,
        Read => 3,
        Write => 4,
        Create => 5,
        Delete => 6,
        Alter => 7,
        Describe => 8,
        ClusterAction => 9,
        DescribeConfigs => 10,
        AlterConfigs => 11,
        IdempotentWrite => 12,
        Operation::CreateTokens => 13,
        Operation::DescribeTokens => 14,
    }
}

/// What Kafka's number of an operation means in a rule.
pub(super) fn operation_of(code: i8) -> Option<Operation> {
    use Operation::{All, CreateTokens, DescribeTokens};
    let all = [
        All,
        Read,
        Write,
        Create,
        Delete,
        Alter,
        Describe,
        ClusterAction,
        DescribeConfigs,
        AlterConfigs,
        IdempotentWrite,
        CreateTokens,
        DescribeTokens,
    ];
    all.into_iter().find(|known| wire_code(*known) == code)
}

/// Kafka's sentence for a refusal.
pub(super) fn sentence(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::TopicAuthorizationFailed => "Topic authorization failed.",
        ErrorCode::GroupAuthorizationFailed => "Group authorization failed.",
        ErrorCode::TransactionalIdAuthorizationFailed => "Transactional Id authorization failed.",
        _ => "Cluster authorization failed.",
    }
}
