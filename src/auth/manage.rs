//! Making, changing and deleting users. Everything here is durable when it returns.

use super::scram::{ScramCredential, ScramMechanism};
use super::users::{
    MachineToken, TOKEN_LABEL_BYTES_MAX, TOKENS_PER_USER_MAX, User, check_name, check_password,
    token_text,
};
use super::{Auth, AuthError, random_bytes, unix_ms};

/// What is said of a machine token when it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// Milliseconds since the Unix epoch; `None`: good until it is deleted.
    pub expires_at_ms: Option<i64>,
    /// For whoever reads the list.
    pub label: Option<String>,
}

/// A machine token, told this once.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Names it in lists.
    pub id: String,
    pub text: String,
}

impl Auth {
    /// Everybody, by name.
    pub fn users(&self) -> Vec<(String, User)> {
        self.shared.users.all()
    }

    pub fn has_users(&self) -> bool {
        !self.shared.users.names().is_empty()
    }

    pub fn user(&self, name: &str) -> Option<User> {
        self.shared.users.get(name)
    }

    /// A new user with a password; `scram` off keeps no SCRAM verifiers of it.
    pub async fn create_user(
        &self,
        name: &str,
        password: &str,
        scram: bool,
    ) -> Result<(), AuthError> {
        self.put_password(name, password, scram, |before| match before {
            Some(_) => Err(AuthError::UserExists(name.to_owned())),
            None => Ok(User::new(unix_ms())),
        })
        .await
    }

    /// Another password for a user. It ends the old one, the SCRAM verifiers, and the tokens of the
    /// HTTP door issued for them; machine tokens stay.
    pub async fn set_password(
        &self,
        name: &str,
        password: &str,
        scram: bool,
    ) -> Result<(), AuthError> {
        self.put_password(name, password, scram, |before| {
            before.ok_or_else(|| AuthError::NoSuchUser(name.to_owned()))
        })
        .await
    }

    async fn put_password(
        &self,
        name: &str,
        password: &str,
        scram: bool,
        user: impl FnOnce(Option<User>) -> Result<User, AuthError>,
    ) -> Result<(), AuthError> {
        valid_name(name)?;
        check_password(password).map_err(AuthError::InvalidPassword)?;
        let kept = self.shared.passwords.keep(password, scram).await?;
        let users = &self.shared.users;
        users
            .change(name, |before| {
                Ok(Some(User {
                    changed_at_ms: unix_ms(),
                    password: Some(kept.phc),
                    scram_off: !scram,
                    scram: kept.scram,
                    ..user(before)?
                }))
            })
            .await
    }

    /// A new user with a machine token and no password.
    pub async fn create_machine(
        &self,
        name: &str,
        options: TokenOptions,
    ) -> Result<NewToken, AuthError> {
        valid_name(name)?;
        self.put_token(name, options, |before| match before {
            Some(_) => Err(AuthError::UserExists(name.to_owned())),
            None => Ok(User::new(unix_ms())),
        })
        .await
    }

    /// One more machine token for a user.
    pub async fn add_token(
        &self,
        name: &str,
        options: TokenOptions,
    ) -> Result<NewToken, AuthError> {
        self.put_token(name, options, |before| {
            before.ok_or_else(|| AuthError::NoSuchUser(name.to_owned()))
        })
        .await
    }

    /// A user whose only machine token this is, made if there is none: whatever tokens there were end.
    pub async fn renew_token(&self, name: &str) -> Result<String, AuthError> {
        valid_name(name)?;
        let renewed = self.put_token(name, TokenOptions::default(), |before| {
            let mut user = before.unwrap_or_else(|| User::new(unix_ms()));
            user.tokens.clear();
            Ok(user)
        });
        Ok(renewed.await?.text)
    }

    async fn put_token(
        &self,
        name: &str,
        options: TokenOptions,
        user: impl FnOnce(Option<User>) -> Result<User, AuthError>,
    ) -> Result<NewToken, AuthError> {
        check_label(options.label.as_deref())?;
        let text = token_text(&random_bytes()?);
        let token = MachineToken {
            expires_at_ms: options.expires_at_ms,
            label: options.label,
            ..MachineToken::of_text(&text, unix_ms())
        };
        let id = token.id();
        let users = &self.shared.users;
        users
            .change(name, |before| {
                let mut user = user(before)?;
                if user.tokens.len() >= TOKENS_PER_USER_MAX {
                    return Err(AuthError::TooManyTokens(name.to_owned()));
                }
                user.tokens.push(token);
                user.changed_at_ms = unix_ms();
                Ok(Some(user))
            })
            .await?;
        Ok(NewToken { id, text })
    }

    /// False if the user has no such token.
    pub async fn delete_token(&self, name: &str, id: &str) -> Result<bool, AuthError> {
        let mut deleted = false;
        let users = &self.shared.users;
        users
            .change(name, |before| {
                let user = before.ok_or_else(|| AuthError::NoSuchUser(name.to_owned()))?;
                let mut user = user;
                let had = user.tokens.len();
                user.tokens.retain(|token| token.id() != id);
                deleted = user.tokens.len() < had;
                user.changed_at_ms = if deleted {
                    unix_ms()
                } else {
                    user.changed_at_ms
                };
                Ok(Some(user))
            })
            .await?;
        Ok(deleted)
    }

    /// A SCRAM verifier made elsewhere (Kafka's AlterUserScramCredentials), for a user who is made if
    /// there is none. The node does not know its password: the Argon2id hash of the one before goes.
    pub async fn put_scram_credential(
        &self,
        name: &str,
        credential: ScramCredential,
    ) -> Result<(), AuthError> {
        valid_name(name)?;
        let users = &self.shared.users;
        users
            .change(name, |before| {
                let mut user = before.unwrap_or_else(|| User::new(unix_ms()));
                if user.scram_off {
                    return Err(AuthError::ScramOff(name.to_owned()));
                }
                user.put_scram(credential);
                user.changed_at_ms = unix_ms();
                Ok(Some(user))
            })
            .await
    }

    /// False if the user has no such verifier. A user with nothing left to sign in with goes.
    pub async fn delete_scram_credential(
        &self,
        name: &str,
        mechanism: ScramMechanism,
    ) -> Result<bool, AuthError> {
        let mut deleted = false;
        let users = &self.shared.users;
        users
            .change(name, |before| {
                let Some(mut user) = before else {
                    return Ok(None);
                };
                deleted = user.scram(mechanism).is_some();
                user.scram.retain(|kept| kept.mechanism() != mechanism);
                user.changed_at_ms = if deleted {
                    unix_ms()
                } else {
                    user.changed_at_ms
                };
                let empty = deleted && user.is_empty();
                Ok((!empty).then_some(user))
            })
            .await?;
        Ok(deleted)
    }

    /// Deletes a user and thereby ends everything issued to them; false if there was none.
    pub async fn delete_user(&self, name: &str) -> Result<bool, AuthError> {
        self.shared.users.delete(name).await
    }
}

fn valid_name(name: &str) -> Result<(), AuthError> {
    check_name(name).map_err(|reason| AuthError::InvalidName {
        name: name.chars().take(super::USER_NAME_BYTES_MAX).collect(),
        reason,
    })
}

fn check_label(label: Option<&str>) -> Result<(), AuthError> {
    let fits =
        |label: &str| label.len() <= TOKEN_LABEL_BYTES_MAX && !label.chars().any(char::is_control);
    match label.is_none_or(fits) {
        true => Ok(()),
        false => Err(AuthError::InvalidLabel(TOKEN_LABEL_BYTES_MAX)),
    }
}
