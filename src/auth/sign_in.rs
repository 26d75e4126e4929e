//! Signing in, by every way there is, and the tokens of the HTTP door.

use std::net::IpAddr;

use super::passwords::NotChecked;
use super::principal::{Authentication, Principal};
use super::scram::{ClientFirst, ScramCredential, ScramError, ScramMechanism, ServerFirst};
use super::throttle::Attempt;
use super::users::{User, fingerprint};
use super::{Auth, AuthError, LoginError, TokenError, random_bytes, unix_ms, unix_s};

/// A signed token for the HTTP door.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    pub jwt: String,
    pub expires_in_s: u64,
}

/// A SCRAM exchange that waits for the client's last message.
#[derive(Debug)]
pub struct ScramLogin {
    name: String,
    credential: ScramCredential,
    waiting: ServerFirst,
    from: IpAddr,
}

impl Auth {
    /// Signs in with a secret presented in the clear: a machine token or a password. An address that
    /// keeps failing is turned away, unheard, until its window ends. Runs off the event loop what takes
    /// longer than microseconds.
    pub async fn login(
        &self,
        name: &str,
        secret: &str,
        from: IpAddr,
    ) -> Result<Principal, LoginError> {
        let attempt = Attempt::new(&self.shared.throttle, from);
        attempt.check().map_err(turned_away)?;
        let user = self.user(name);
        let token = user
            .as_ref()
            .and_then(|user| user.token_matching(secret, unix_ms()));
        let fingerprint = match token {
            Some(id) => Some(id),
            None => {
                let passwords = &self.shared.passwords;
                let checked = passwords.check(name, user.as_ref(), secret, &attempt).await;
                checked.map_err(|refused| match refused {
                    NotChecked::Busy => LoginError::Busy,
                    NotChecked::TurnedAway(retry_after_s) => turned_away(retry_after_s),
                })?
            }
        };
        let fingerprint = fingerprint.ok_or(LoginError::Refused)?;
        let principal = Principal::new(name, Authentication::Secret, from);
        Ok(principal.with_credential(&fingerprint))
    }

    /// Takes the client's first SCRAM message; the server's first one is to be sent. A user who does
    /// not exist, or has no verifier of this mechanism, fails at the end like a wrong password.
    pub fn scram_start(
        &self,
        mechanism: ScramMechanism,
        message: &[u8],
        from: IpAddr,
    ) -> Result<(ScramLogin, String), LoginError> {
        let attempt = Attempt::new(&self.shared.throttle, from);
        attempt.check().map_err(turned_away)?;
        let first = ClientFirst::parse(message).map_err(LoginError::Exchange)?;
        let name = first.name().to_owned();
        let credential = self.scram_credential(&name, mechanism);
        let credential = credential.unwrap_or_else(|| {
            let iterations = self.shared.config.scram_iterations;
            ScramCredential::made_up(mechanism, &name, &self.shared.scram_secret, iterations)
        });
        let random = random_bytes().map_err(|_| LoginError::NoRandomness)?;
        let (waiting, answer) = first.answer(credential.clone(), &random);
        let login = ScramLogin {
            name,
            credential,
            waiting,
            from,
        };
        Ok((login, answer))
    }

    /// Takes the client's last SCRAM message; the server's last one is to be sent to whom it names.
    pub fn scram_finish(
        &self,
        login: ScramLogin,
        message: &[u8],
    ) -> Result<(Principal, String), LoginError> {
        let ScramLogin {
            name,
            credential,
            waiting,
            from,
        } = login;
        let attempt = Attempt::new(&self.shared.throttle, from);
        attempt.check().map_err(turned_away)?;
        let mechanism = credential.mechanism();
        let answer = waiting.finish(message).and_then(|answer| {
            // The user may have been changed since the exchange began.
            let current = self.scram_credential(&name, mechanism);
            let unchanged = current.as_ref() == Some(&credential);
            unchanged.then_some(answer).ok_or(ScramError::Refused)
        });
        let answer = answer.map_err(|error| match error {
            ScramError::Refused => {
                attempt.failed();
                LoginError::Refused
            }
            error => LoginError::Exchange(error),
        })?;
        let hash = self
            .user(&name)
            .and_then(|user| user.password_fingerprint());
        let fingerprint = hash.unwrap_or_else(|| fingerprint(credential.stored_key()));
        let principal = Principal::new(&name, Authentication::Scram(mechanism), from);
        Ok((principal.with_credential(&fingerprint), answer))
    }

    fn scram_credential(&self, name: &str, mechanism: ScramMechanism) -> Option<ScramCredential> {
        self.user(name)?.scram(mechanism).cloned()
    }

    /// How long a token is good for.
    pub fn token_lifetime_s(&self) -> u64 {
        self.shared.config.token_lifetime_s
    }

    /// A token for whoever signed in with a password or a machine token; it ends with that credential.
    pub fn issue_token(&self, principal: &Principal) -> Result<IssuedToken, AuthError> {
        let name = principal.name();
        let credential = principal.credential.as_deref();
        let credential = credential.ok_or_else(|| AuthError::NoCredential(name.to_owned()))?;
        let expires_in_s = self.shared.config.token_lifetime_s;
        let keys = &self.shared.keys;
        let jwt = keys.sign(name, credential, unix_s(), expires_in_s)?;
        Ok(IssuedToken { jwt, expires_in_s })
    }

    /// Accepts only HS256 under this node's key, not expired, of a user who still has the credential
    /// that the token was issued for.
    pub fn verify_token(&self, jwt: &str, from: IpAddr) -> Result<Principal, TokenError> {
        let claims = self.shared.keys.verify(jwt, unix_s())?;
        let has_credential = |user: &User| user.has_credential(&claims.cred, unix_ms());
        let user = self.user(&claims.sub).filter(has_credential);
        user.ok_or(TokenError::Revoked)?;
        let principal = Principal::new(&claims.sub, Authentication::Bearer, from);
        Ok(principal.with_credential(&claims.cred))
    }

    /// A token issued so long ago that it has expired; what waiting would make of any other.
    #[cfg(test)]
    pub(crate) fn expired_token(&self, name: &str) -> Result<String, AuthError> {
        let lifetime_s = self.shared.config.token_lifetime_s;
        let issued_s = unix_s().saturating_sub(lifetime_s + 60);
        let tokens = self.user(name).map(|user| user.tokens).unwrap_or_default();
        let credential = tokens
            .first()
            .map(super::MachineToken::id)
            .unwrap_or_default();
        let keys = &self.shared.keys;
        keys.sign(name, &credential, issued_s, lifetime_s)
    }
}

fn turned_away(retry_after_s: u64) -> LoginError {
    LoginError::TooManyFailures { retry_after_s }
}
