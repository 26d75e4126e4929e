//! Why the coordinator refuses; every variant is one Kafka error code.

use holdfast_storage::log::{AppendError, TransactionError};

/// A refusal, as Kafka's coordinator would give it. The text is for the log; clients see the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// 3, of one partition in a commit.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// 12, of one partition in a commit.
    #[error("offset metadata is too large")]
    OffsetMetadataTooLarge,
    /// 15: shutting down, or `groups_max` groups have members. Clients look up the coordinator and try again.
    #[error("coordinator not available")]
    CoordinatorNotAvailable,
    /// 22.
    #[error("generation is not the group's current one")]
    IllegalGeneration,
    /// 23.
    #[error("no protocol in common with the group")]
    InconsistentGroupProtocol,
    /// 24.
    #[error("invalid group id")]
    InvalidGroupId,
    /// 25: the client forgets its member id and joins anew.
    #[error("unknown member id")]
    UnknownMemberId,
    /// 26.
    #[error("session time-out is outside the configured bounds")]
    InvalidSessionTimeout,
    /// 27: the client joins again.
    #[error("rebalance in progress")]
    RebalanceInProgress,
    /// 28: more offsets than the log takes in one piece.
    #[error("too many offsets in one commit")]
    InvalidCommitOffsetSize,
    /// 42: over `member_bytes_max`, or a negative offset.
    #[error("invalid request")]
    InvalidRequest,
    /// 47: a transaction's producer has another epoch.
    #[error("the producer was fenced")]
    InvalidProducerEpoch,
    /// 120: offsets were not added to the transaction. 48 for producers that do not know that.
    #[error("the transaction does not have the group's offsets")]
    TransactionAbortable,
    /// 48.
    #[error("the transaction does not take it")]
    InvalidTxnState,
    /// 49.
    #[error("the transactional id is not this producer's")]
    InvalidProducerIdMapping,
    /// 56: the log takes no writes.
    #[error("storage failure")]
    KafkaStorageError,
    /// 68: only a group without members is deleted.
    #[error("the group has members")]
    NonEmptyGroup,
    /// 69.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// 79: join again with this member id. Goes into the JoinGroup response beside the code.
    #[error("member id required")]
    MemberIdRequired {
        /// The id to come back with.
        member_id: String,
    },
    /// 81.
    #[error("the group has as many members as it may")]
    GroupMaxSizeReached,
    /// 82: another client has taken over the group instance id.
    #[error("group instance id was taken over by a newer member")]
    FencedInstanceId,
}

impl GroupError {
    /// The number on the wire.
    pub fn code(&self) -> i16 {
        match self {
            GroupError::UnknownTopicOrPartition => 3,
            GroupError::OffsetMetadataTooLarge => 12,
            GroupError::CoordinatorNotAvailable => 15,
            GroupError::IllegalGeneration => 22,
            GroupError::InconsistentGroupProtocol => 23,
            GroupError::InvalidGroupId => 24,
            GroupError::UnknownMemberId => 25,
            GroupError::InvalidSessionTimeout => 26,
            GroupError::RebalanceInProgress => 27,
            GroupError::InvalidCommitOffsetSize => 28,
            GroupError::InvalidRequest => 42,
            GroupError::InvalidProducerEpoch => 47,
            GroupError::InvalidTxnState => 48,
            GroupError::TransactionAbortable => 120,
            GroupError::InvalidProducerIdMapping => 49,
            GroupError::KafkaStorageError => 56,
            GroupError::NonEmptyGroup => 68,
            GroupError::GroupIdNotFound => 69,
            GroupError::MemberIdRequired { .. } => 79,
            GroupError::GroupMaxSizeReached => 81,
            GroupError::FencedInstanceId => 82,
        }
    }
}

impl From<AppendError> for GroupError {
    fn from(error: AppendError) -> GroupError {
        match error {
            AppendError::Closed => GroupError::CoordinatorNotAvailable,
            AppendError::TooLarge { .. } => GroupError::InvalidCommitOffsetSize,
            AppendError::Invalid(_) => GroupError::InvalidRequest,
            AppendError::Transaction(error) => match *error {
                TransactionError::UnknownId | TransactionError::UnknownProducer(_) => {
                    GroupError::InvalidProducerIdMapping
                }
                TransactionError::Fenced(_) => GroupError::InvalidProducerEpoch,
                TransactionError::TooManyOffsets => GroupError::InvalidCommitOffsetSize,
                TransactionError::NotAdded => GroupError::TransactionAbortable,
                _ => GroupError::InvalidTxnState,
            },
            _ => GroupError::KafkaStorageError,
        }
    }
}
