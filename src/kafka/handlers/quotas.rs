//! DescribeClientQuotas and AlterClientQuotas (KIP-546).

use std::collections::HashSet;
use std::sync::Arc;

use super::super::access::{Operation, sentence};
use super::super::broker::{Asker, Broker, Refusal};
use super::super::protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, AlterQuotaEntryData, AlterQuotaResult,
    ComponentData, DescribeClientQuotasRequest, DescribeClientQuotasResponse, QuotaEntityData,
    QuotaEntryData, QuotaOpData, QuotaValueData,
};
use super::super::protocol::{ErrorCode, Str};
use super::super::quotas::{Change, ENTITIES_MAX, Entity, Filter, Matching, Part, Quota};
use super::produce::append_error;

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

fn invalid(message: String) -> Refusal {
    (ErrorCode::InvalidRequest, message)
}

pub(super) fn describe(
    broker: &Broker,
    asker: &Asker,
    request: &DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let may = broker.access(asker).to_cluster(Operation::DescribeConfigs);
    let may = may.map_err(|error| (error, sentence(error).to_owned()));
    let filter = match may.and_then(|()| filter(request)) {
        Ok(filter) => filter,
        Err((error, message)) => {
            return DescribeClientQuotasResponse {
                error_code: error.code(),
                error_message: Some(message.into()),
                entries: None,
                ..Default::default()
            };
        }
    };
    let found = broker.quotas.find(&filter).into_iter();
    let entries = found.map(|(entity, values)| QuotaEntryData {
        entity: (entity.parts())
            .map(|(kind, part)| QuotaEntityData {
                entity_type: kind.into(),
                entity_name: match part {
                    Part::Default => None,
                    Part::Is(name) => Some(name.as_str().into()),
                },
            })
            .collect(),
        values: values
            .into_iter()
            .map(|(quota, value)| QuotaValueData {
                key: quota.name().into(),
                value,
            })
            .collect(),
    });
    DescribeClientQuotasResponse {
        error_message: None,
        entries: Some(entries.collect()),
        ..Default::default()
    }
}

fn filter(request: &DescribeClientQuotasRequest) -> Result<Filter, Refusal> {
    let mut kinds = HashSet::new();
    let part = |component: &ComponentData| {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return Err(invalid(
                "Unexpected empty filter component entity type".into(),
            ));
        }
        if !matches!(kind, "user" | "client-id" | "ip") {
            return Err((
                ErrorCode::UnsupportedVersion,
                format!("Custom entity type '{kind}' not supported"),
            ));
        }
        if !kinds.insert(kind.to_owned()) {
            return Err(invalid(format!(
                "Duplicate filter component entity type '{kind}'"
            )));
        }
        let name = component
            ._match
            .as_ref()
            .map(|name| name.as_str().to_owned());
        let matching = match (component.match_type, name) {
            (EXACT, Some(name)) => Matching::Exactly(Part::Is(name)),
            (DEFAULT, None) => Matching::Exactly(Part::Default),
            (ANY, None) => Matching::Any,
            (EXACT..=ANY, _) => {
                return Err(invalid(
                    "a name goes with an exact match, and with no other".into(),
                ));
            }
            (other, _) => return Err(invalid(format!("Unknown match type {other}"))),
        };
        Ok((kind.to_owned(), matching))
    };
    Ok(Filter {
        parts: request
            .components
            .iter()
            .map(part)
            .collect::<Result<_, _>>()?,
        is_strict: request.strict,
    })
}

pub(super) async fn alter(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let may = broker.access(asker).to_cluster(Operation::AlterConfigs);
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let outcome = match &may {
            Ok(()) => alter_one(broker, &entry, request.validate_only).await,
            Err(error) => Err((*error, sentence(*error).to_owned())),
        };
        let (error, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(Str::from(message))),
        };
        entries.push(AlterQuotaResult {
            error_code: error.code(),
            error_message: message,
            entity: entry.entity,
        });
    }
    AlterClientQuotasResponse {
        entries,
        ..Default::default()
    }
}

async fn alter_one(
    broker: &Broker,
    entry: &AlterQuotaEntryData,
    validate_only: bool,
) -> Result<(), Refusal> {
    let mut entity = Entity::default();
    for part in &entry.entity {
        let kind = part.entity_type.as_str();
        let name = part.entity_name.as_ref();
        let name = name.map_or(Part::Default, |name| Part::Is(name.as_str().to_owned()));
        if name == Part::Is(String::new()) {
            return Err(invalid(format!("Empty {kind} not supported")));
        }
        if !entity.set(kind, name) {
            return Err(invalid(format!(
                "Unhandled client quota entity type: {kind}"
            )));
        }
    }
    if !entity.is_possible() {
        return Err(invalid("Invalid empty or mixed client quota entity".into()));
    }
    let changes: Vec<Change> = (entry.ops.iter())
        .map(|op| change(&entity, op))
        .collect::<Result<_, _>>()?;
    if validate_only {
        return Ok(());
    }
    match broker.quotas.change(&entity, &changes).await {
        Ok(true) => {
            tracing::info!(?entity, ?changes, "client quotas changed");
            Ok(())
        }
        Ok(false) => {
            let message = format!("no more than {ENTITIES_MAX} entities can have quotas");
            Err((ErrorCode::PolicyViolation, message))
        }
        Err(error) => Err(append_error(&error)),
    }
}

fn change(entity: &Entity, op: &QuotaOpData) -> Result<Change, Refusal> {
    let key = op.key.as_str();
    let quota = Quota::named(key).filter(|quota| entity.can_have(*quota));
    let quota = quota.ok_or_else(|| invalid(format!("Invalid configuration key {key}")))?;
    if op.remove {
        return Ok((quota, None));
    }
    if !(op.value > 0.0 && op.value.is_finite()) {
        return Err(invalid(format!("Quota {key} must be greater than 0")));
    }
    if quota.is_whole() && op.value.fract() != 0.0 {
        return Err(invalid(format!("{key} cannot be a fractional value")));
    }
    Ok((quota, Some(op.value)))
}
