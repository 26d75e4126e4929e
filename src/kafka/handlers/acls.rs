//! DescribeAcls, CreateAcls, DeleteAcls: access rules as Kafka's tools edit them.

use std::sync::Arc;
use tokio::task::consume_budget;

use super::super::access::{Operation, operation_of, sentence, wire_code};
use super::super::broker::{Asker, Broker, Refusal};
use super::super::protocol::messages::{
    AclCreation, AclCreationResult, AclDescription, CreateAclsRequest, CreateAclsResponse,
    DeleteAclsFilter, DeleteAclsFilterResult, DeleteAclsMatchingAcl, DeleteAclsRequest,
    DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResource, DescribeAclsResponse,
};
use super::super::protocol::{ErrorCode, Str};
use super::produce::append_error;
use crate::auth::acl::binding::PatternFilter;
use crate::auth::{AclBinding, AclError, AclFilter, PatternType, Permission, ResourceType};

/// In a filter: whatever it is.
const ANY: i8 = 1;
/// In a filter: patterns that cover the name.
const MATCH: i8 = 2;

const RESOURCE_TYPES: [(i8, ResourceType); 6] = [
    (2, ResourceType::Topic),
    (3, ResourceType::Group),
    (4, ResourceType::Cluster),
    (5, ResourceType::TransactionalId),
    (6, ResourceType::DelegationToken),
    (7, ResourceType::User),
];
const PATTERN_TYPES: [(i8, PatternType); 2] =
    [(3, PatternType::Literal), (4, PatternType::Prefixed)];
const PERMISSIONS: [(i8, Permission); 2] = [(2, Permission::Deny), (3, Permission::Allow)];

fn meant<T: Copy>(table: &[(i8, T)], code: i8) -> Option<T> {
    let found = table.iter().find(|(known, _)| *known == code);
    found.map(|(_, meaning)| *meaning)
}

fn code_of<T: PartialEq>(table: &[(i8, T)], meaning: &T) -> i8 {
    let found = table.iter().find(|(_, known)| known == meaning);
    found.map_or(0, |(code, _)| *code)
}

fn refusal(error: &AclError) -> Refusal {
    let code = match error {
        AclError::Disabled => ErrorCode::SecurityDisabled,
        AclError::Invalid(_) => ErrorCode::InvalidRequest,
        AclError::TooMany => ErrorCode::PolicyViolation,
        AclError::Append(error) => return append_error(error),
    };
    (code, error.to_string())
}

fn unknown(what: &str, code: i8) -> Refusal {
    let message = format!("{code} is no {what} that is possible here");
    (ErrorCode::InvalidRequest, message)
}

/// What a filter says, as it is said in two requests.
struct Asked<'a> {
    resource_type: i8,
    name: &'a Option<Str>,
    pattern_type: i8,
    principal: &'a Option<Str>,
    host: &'a Option<Str>,
    operation: i8,
    permission: i8,
}

impl Asked<'_> {
    fn filter(&self) -> Result<AclFilter, Refusal> {
        let owned = |text: &Option<Str>| text.as_ref().map(Str::to_string);
        Ok(AclFilter {
            resource_type: some_or_any(self.resource_type, |code| meant(&RESOURCE_TYPES, code))
                .ok_or_else(|| unknown("resource type", self.resource_type))?,
            pattern: match self.pattern_type {
                ANY => PatternFilter::Any,
                MATCH => PatternFilter::Match,
                code => PatternFilter::Only(
                    meant(&PATTERN_TYPES, code).ok_or_else(|| unknown("pattern type", code))?,
                ),
            },
            name: owned(self.name),
            principal: owned(self.principal),
            host: owned(self.host),
            operation: some_or_any(self.operation, operation_of)
                .ok_or_else(|| unknown("operation", self.operation))?,
            permission: some_or_any(self.permission, |code| meant(&PERMISSIONS, code))
                .ok_or_else(|| unknown("permission", self.permission))?,
        })
    }
}

/// `None` where the number means nothing, `Some(None)` where it means anything.
fn some_or_any<T>(code: i8, meaning: impl Fn(i8) -> Option<T>) -> Option<Option<T>> {
    match code {
        ANY => Some(None),
        code => meaning(code).map(Some),
    }
}

pub(super) fn describe(
    broker: &Broker,
    asker: &Asker,
    request: &DescribeAclsRequest,
) -> DescribeAclsResponse {
    let asked = Asked {
        resource_type: request.resource_type_filter,
        name: &request.resource_name_filter,
        pattern_type: request.pattern_type_filter,
        principal: &request.principal_filter,
        host: &request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    };
    let allowed = broker.access(asker).to_cluster(Operation::Describe);
    let allowed = allowed.map_err(|error| (error, sentence(error).to_owned()));
    let found = allowed.and_then(|()| {
        let found = broker.auth.acls(&asked.filter()?);
        found.map_err(|error| refusal(&error))
    });
    match found {
        Ok(found) => DescribeAclsResponse {
            error_message: None,
            resources: by_resource(found),
            ..Default::default()
        },
        Err((error, message)) => DescribeAclsResponse {
            error_code: error.code(),
            error_message: Some(message.into()),
            ..Default::default()
        },
    }
}

/// Rules come ordered by resource.
fn by_resource(found: Vec<AclBinding>) -> Vec<DescribeAclsResource> {
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    for binding in found {
        let acl = AclDescription {
            principal: binding.principal.into(),
            host: binding.host.into(),
            operation: wire_code(binding.operation),
            permission_type: code_of(&PERMISSIONS, &binding.permission),
        };
        let resource_type = code_of(&RESOURCE_TYPES, &binding.resource_type);
        let pattern_type = code_of(&PATTERN_TYPES, &binding.pattern_type);
        match resources.last_mut() {
            Some(last)
                if last.resource_type == resource_type
                    && last.pattern_type == pattern_type
                    && last.resource_name.as_str() == binding.name =>
            {
                last.acls.push(acl);
            }
            _ => resources.push(DescribeAclsResource {
                resource_type,
                resource_name: binding.name.into(),
                pattern_type,
                acls: vec![acl],
            }),
        }
    }
    resources
}

fn binding(creation: &AclCreation) -> Result<AclBinding, Refusal> {
    let resource_type = creation.resource_type;
    let pattern_type = creation.resource_pattern_type;
    let permission = creation.permission_type;
    Ok(AclBinding {
        resource_type: meant(&RESOURCE_TYPES, resource_type)
            .ok_or_else(|| unknown("resource type", resource_type))?,
        pattern_type: meant(&PATTERN_TYPES, pattern_type)
            .ok_or_else(|| unknown("pattern type", pattern_type))?,
        name: creation.resource_name.to_string(),
        principal: creation.principal.to_string(),
        host: creation.host.to_string(),
        operation: operation_of(creation.operation)
            .ok_or_else(|| unknown("operation", creation.operation))?,
        permission: meant(&PERMISSIONS, permission)
            .ok_or_else(|| unknown("permission", permission))?,
    })
}

pub(super) async fn create(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let allowed = broker.access(asker).to_cluster(Operation::Alter);
    let allowed = allowed.map_err(|error| (error, sentence(error).to_owned()));
    let asked: Vec<Result<AclBinding, Refusal>> = match &allowed {
        Ok(()) => request.creations.iter().map(binding).collect(),
        Err(refused) => vec![Err(refused.clone()); request.creations.len()],
    };
    let good = asked.iter().filter_map(|asked| asked.as_ref().ok());
    let created = match allowed {
        Ok(()) => broker.auth.create_acls(good.cloned().collect()).await,
        Err(_) => Ok(Vec::new()),
    };
    let outcomes: Vec<Result<(), Refusal>> = match created {
        Ok(created) => {
            let mut created = created.into_iter();
            let outcome = |asked: Result<AclBinding, Refusal>| {
                let binding = asked?;
                match created.next() {
                    Some(Ok(())) => {
                        tracing::info!(principal = %asker.principal, rule = ?binding, "access rule made");
                        Ok(())
                    }
                    Some(Err(error)) => Err(refusal(&error)),
                    None => Err((ErrorCode::UnknownServerError, String::new())),
                }
            };
            asked.into_iter().map(outcome).collect()
        }
        Err(error) => asked.iter().map(|_| Err(refusal(&error))).collect(),
    };
    let result = |outcome: Result<(), Refusal>| match outcome {
        Ok(()) => AclCreationResult {
            error_message: None,
            ..Default::default()
        },
        Err((error, message)) => AclCreationResult {
            error_code: error.code(),
            error_message: Some(message.into()),
        },
    };
    CreateAclsResponse {
        results: outcomes.into_iter().map(result).collect(),
        ..Default::default()
    }
}

pub(super) async fn delete(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let allowed = broker.access(asker).to_cluster(Operation::Alter);
    let allowed = allowed.map_err(|error| (error, sentence(error).to_owned()));
    let mut filter_results = Vec::with_capacity(request.filters.len());
    for filter in &request.filters {
        consume_budget().await;
        let deleted = match &allowed {
            Ok(()) => delete_matching(broker, asker, filter).await,
            Err(refused) => Err(refused.clone()),
        };
        filter_results.push(match deleted {
            Ok(deleted) => DeleteAclsFilterResult {
                error_message: None,
                matching_acls: deleted.into_iter().map(matching).collect(),
                ..Default::default()
            },
            Err((error, message)) => DeleteAclsFilterResult {
                error_code: error.code(),
                error_message: Some(message.into()),
                ..Default::default()
            },
        });
    }
    DeleteAclsResponse {
        filter_results,
        ..Default::default()
    }
}

async fn delete_matching(
    broker: &Arc<Broker>,
    asker: &Asker,
    filter: &DeleteAclsFilter,
) -> Result<Vec<AclBinding>, Refusal> {
    let asked = Asked {
        resource_type: filter.resource_type_filter,
        name: &filter.resource_name_filter,
        pattern_type: filter.pattern_type_filter,
        principal: &filter.principal_filter,
        host: &filter.host_filter,
        operation: filter.operation,
        permission: filter.permission_type,
    };
    let deleted = broker.auth.delete_acls(&asked.filter()?).await;
    let deleted = deleted.map_err(|error| refusal(&error))?;
    for rule in &deleted {
        tracing::info!(principal = %asker.principal, ?rule, "access rule deleted");
    }
    Ok(deleted)
}

fn matching(binding: AclBinding) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        error_code: 0,
        error_message: None,
        resource_type: code_of(&RESOURCE_TYPES, &binding.resource_type),
        resource_name: binding.name.into(),
        pattern_type: code_of(&PATTERN_TYPES, &binding.pattern_type),
        principal: binding.principal.into(),
        host: binding.host.into(),
        operation: wire_code(binding.operation),
        permission_type: code_of(&PERMISSIONS, &binding.permission),
    }
}
