//! DescribeUserScramCredentials and AlterUserScramCredentials (KIP-554): users' SCRAM verifiers, which
//! clients compute, so that passwords do not travel.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::super::access::{Operation, sentence};
use super::super::broker::{Asker, Broker, Refusal};
use super::super::protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult, CredentialInfo, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
    ScramCredentialUpsertion,
};
use super::super::protocol::{ErrorCode, Str};
use super::produce::append_error;
use crate::auth::scram::{ScramCredential, ScramMechanism};
use crate::auth::{AuthError, User};

const MECHANISMS: [(i8, ScramMechanism); 2] =
    [(1, ScramMechanism::Sha256), (2, ScramMechanism::Sha512)];

fn mechanism(code: i8) -> Result<ScramMechanism, Refusal> {
    let found = MECHANISMS.iter().find(|(known, _)| *known == code);
    let found = found.map(|(_, mechanism)| *mechanism);
    found.ok_or_else(|| {
        let message = "Unknown SCRAM mechanism".to_owned();
        (ErrorCode::UnsupportedSaslMechanism, message)
    })
}

fn code_of(mechanism: ScramMechanism) -> i8 {
    let found = MECHANISMS.iter().find(|(_, known)| *known == mechanism);
    found.map_or(0, |(code, _)| *code)
}

pub(super) fn describe(
    broker: &Broker,
    asker: &Asker,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    if let Err(error) = broker.access(asker).to_cluster(Operation::Describe) {
        return DescribeUserScramCredentialsResponse {
            error_code: error.code(),
            error_message: Some(sentence(error).into()),
            ..Default::default()
        };
    }
    let results = match request.users.filter(|users| !users.is_empty()) {
        None => everybody(broker),
        Some(users) => {
            let names: Vec<String> = users.iter().map(|user| user.name.to_string()).collect();
            let mut seen = HashSet::new();
            let twice: HashSet<&String> = names.iter().filter(|name| !seen.insert(*name)).collect();
            let mut told = HashSet::new();
            let once = names.iter().filter(|name| told.insert(*name));
            once.map(|name| one(broker, name, twice.contains(name)))
                .collect()
        }
    };
    DescribeUserScramCredentialsResponse {
        error_message: None,
        results,
        ..Default::default()
    }
}

fn everybody(broker: &Broker) -> Vec<DescribeUserScramCredentialsResult> {
    let all = broker.auth.users().into_iter();
    let with_scram = all.filter(|(_, user)| !user.scram_credentials().is_empty());
    with_scram.map(|(name, user)| shown(&name, &user)).collect()
}

fn one(broker: &Broker, name: &str, is_twice: bool) -> DescribeUserScramCredentialsResult {
    let user = broker.auth.user(name);
    let user = user.filter(|user| !user.scram_credentials().is_empty());
    let (error, message) = match user {
        _ if is_twice => (
            ErrorCode::DuplicateResource,
            format!(
                "Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
            ),
        ),
        Some(user) => return shown(name, &user),
        None => (
            ErrorCode::ResourceNotFound,
            format!("Attempt to describe a user credential that does not exist: {name}"),
        ),
    };
    DescribeUserScramCredentialsResult {
        user: name.into(),
        error_code: error.code(),
        error_message: Some(message.into()),
        credential_infos: Vec::new(),
    }
}

fn shown(name: &str, user: &User) -> DescribeUserScramCredentialsResult {
    let info = |credential: &ScramCredential| CredentialInfo {
        mechanism: code_of(credential.mechanism()),
        iterations: i32::try_from(credential.iterations()).unwrap_or(i32::MAX),
    };
    DescribeUserScramCredentialsResult {
        user: name.into(),
        error_code: 0,
        error_message: None,
        credential_infos: user.scram_credentials().iter().map(info).collect(),
    }
}

/// What is done to a user's verifier of one mechanism.
enum Change {
    Delete(ScramMechanism),
    Put(ScramCredential),
}

impl Change {
    fn mechanism(&self) -> ScramMechanism {
        match self {
            Change::Delete(mechanism) => *mechanism,
            Change::Put(credential) => credential.mechanism(),
        }
    }
}

/// All changes of a user, or none, where one of them cannot be.
pub(super) async fn alter(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let allowed = broker.access(asker).to_cluster(Operation::Alter);
    let mut users: BTreeMap<String, Vec<Result<Change, Refusal>>> = BTreeMap::new();
    for deletion in request.deletions {
        let of_user = users.entry(deletion.name.to_string()).or_default();
        of_user.push(mechanism(deletion.mechanism).map(Change::Delete));
    }
    for upsertion in request.upsertions {
        let of_user = users.entry(upsertion.name.to_string()).or_default();
        of_user.push(credential(&upsertion).map(Change::Put));
    }
    let mut results = Vec::with_capacity(users.len());
    for (name, changes) in users {
        let changed = match allowed {
            Ok(()) => change(broker, &name, changes).await,
            Err(error) => Err((error, sentence(error).to_owned())),
        };
        if changed.is_ok() {
            tracing::info!(principal = %asker.principal, user = name, "SCRAM verifiers changed");
        }
        let (error, error_message) = match changed {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(Str::from(message))),
        };
        results.push(AlterUserScramCredentialsResult {
            user: name.into(),
            error_code: error.code(),
            error_message,
        });
    }
    AlterUserScramCredentialsResponse {
        results,
        ..Default::default()
    }
}

fn unacceptable(message: String) -> Refusal {
    (ErrorCode::UnacceptableCredential, message)
}

fn credential(upsertion: &ScramCredentialUpsertion) -> Result<ScramCredential, Refusal> {
    let iterations = u32::try_from(upsertion.iterations).unwrap_or(0);
    let (salted, salt) = (&upsertion.salted_password, &upsertion.salt);
    let mechanism = mechanism(upsertion.mechanism)?;
    let made = ScramCredential::of_salted_password(mechanism, salted, salt, iterations);
    made.map_err(|error| unacceptable(error.to_string()))
}

async fn change(
    broker: &Arc<Broker>,
    name: &str,
    changes: Vec<Result<Change, Refusal>>,
) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(unacceptable("Username must not be empty".to_owned()));
    }
    let changes = changes.into_iter().collect::<Result<Vec<Change>, _>>()?;
    let mut named = HashSet::new();
    if !changes
        .iter()
        .all(|change| named.insert(change.mechanism()))
    {
        let message = "A user credential cannot be altered twice in the same request";
        return Err((ErrorCode::DuplicateResource, message.to_owned()));
    }
    let user = broker.auth.user(name);
    let has = |mechanism| user.as_ref().is_some_and(|u| u.scram(mechanism).is_some());
    let is_missing = |change: &Change| matches!(change, Change::Delete(m) if !has(*m));
    if changes.iter().any(is_missing) {
        return Err(missing());
    }
    for change in changes {
        match change {
            Change::Delete(mechanism) => {
                let deleted = broker.auth.delete_scram_credential(name, mechanism).await;
                let deleted = deleted.map_err(|error| refusal(&error))?;
                deleted.then_some(()).ok_or_else(missing)?;
            }
            Change::Put(credential) => {
                let put = broker.auth.put_scram_credential(name, credential).await;
                put.map_err(|error| refusal(&error))?;
            }
        }
    }
    Ok(())
}

fn missing() -> Refusal {
    let message = "Attempt to delete a user credential that does not exist".to_owned();
    (ErrorCode::ResourceNotFound, message)
}

fn refusal(error: &AuthError) -> Refusal {
    match error {
        AuthError::Append(error) => append_error(error),
        AuthError::TooManyUsers => (ErrorCode::PolicyViolation, error.to_string()),
        other => unacceptable(other.to_string()),
    }
}
