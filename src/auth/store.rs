//! Users in the log's settings: read where they are, changed one at a time, durable before anybody is
//! told. No copy of them is kept, so that there is no second truth to fall out of step.
//!
//! Clients of earlier versions (kind `auth.client`) become users when the store opens: the user is
//! durable before the client's record goes, so that a crash in between only repeats the second half.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use holdfast_storage::log::Log;
use tokio::sync::Mutex;

use super::AuthError;
use super::users::User;

pub(super) const USER_KIND: &str = "auth.user";
pub(super) const CLIENT_KIND: &str = "auth.client";

/// Users of one node; every one is in memory, about a kilobyte each.
pub const USERS_MAX: usize = 100_000;

/// Conversions under way together: they share the log's flushes.
const CONVERTED_AT_ONCE: usize = 256;

pub(super) struct UserStore {
    log: Log,
    /// Who changes a record has read it under this lock.
    changing: Mutex<()>,
}

impl UserStore {
    pub(super) async fn open(log: Log) -> Result<UserStore, AuthError> {
        let clients = stream::iter(log.settings(CLIENT_KIND));
        let converted = clients.map(|(name, value)| convert(&log, name, value));
        converted
            .buffer_unordered(CONVERTED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(UserStore {
            log,
            changing: Mutex::new(()),
        })
    }

    /// A record that cannot be read is reported, and its user refused.
    pub(super) fn get(&self, name: &str) -> Option<User> {
        match self.read(name) {
            Ok(user) => user,
            Err(error) => {
                tracing::error!(%error, "the user is refused");
                None
            }
        }
    }

    /// Everybody whose record can be read, by name.
    pub(super) fn all(&self) -> Vec<(String, User)> {
        let names = self.names().into_iter();
        names
            .filter_map(|name| self.get(&name).map(|user| (name, user)))
            .collect()
    }

    /// Sorted, those whose records cannot be read among them.
    pub(super) fn names(&self) -> Vec<String> {
        let settings = self.log.settings(USER_KIND).into_iter();
        let mut names: Vec<String> = settings.map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// Replaces a record by what `change` makes of it, `None` deletes it. Durable when it returns.
    pub(super) async fn change(
        &self,
        name: &str,
        change: impl FnOnce(Option<User>) -> Result<Option<User>, AuthError>,
    ) -> Result<(), AuthError> {
        let _changing = self.changing.lock().await;
        let before = self.read(name)?;
        let existed = before.is_some();
        let Some(after) = change(before)? else {
            return match existed {
                true => self.put(name, None).await,
                false => Ok(()),
            };
        };
        if !existed && self.names().len() >= USERS_MAX {
            return Err(AuthError::TooManyUsers);
        }
        self.put(name, Some(after.to_bytes())).await
    }

    /// False if there was none. A damaged record goes like any other.
    pub(super) async fn delete(&self, name: &str) -> Result<bool, AuthError> {
        let _changing = self.changing.lock().await;
        if self.log.setting(USER_KIND, name).is_none() {
            return Ok(false);
        }
        self.put(name, None).await?;
        Ok(true)
    }

    fn read(&self, name: &str) -> Result<Option<User>, AuthError> {
        let value = self.log.setting(USER_KIND, name);
        let user = value.map(|value| User::from_bytes(&value)).transpose();
        user.map_err(|reason| AuthError::DamagedSetting {
            kind: USER_KIND,
            key: name.to_owned(),
            reason,
        })
    }

    async fn put(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), AuthError> {
        let value = value.map(Bytes::from);
        Ok(self.log.put_setting(USER_KIND, name, value).await?)
    }
}

async fn convert(log: &Log, name: String, value: Bytes) -> Result<(), AuthError> {
    let user = match User::from_client_bytes(&value) {
        Ok(user) => user,
        Err(reason) => {
            tracing::error!(
                client_id = name,
                reason,
                "client record cannot be read: it stays as it is"
            );
            return Ok(());
        }
    };
    if log.setting(USER_KIND, &name).is_none() {
        let user = Bytes::from(user.to_bytes());
        log.put_setting(USER_KIND, &name, Some(user)).await?;
    }
    Ok(log.put_setting(CLIENT_KIND, &name, None).await?)
}
