// This file was generated with `clorinde`. Do not modify.

#[derive(Debug, Clone, PartialEq)]
pub struct UsersWithEmail {
    pub id: i64,
    pub name: String,
    pub email: String,
}
pub struct UsersWithEmailBorrowed<'a> {
    pub id: i64,
    pub name: &'a str,
    pub email: &'a str,
}
impl<'a> From<UsersWithEmailBorrowed<'a>> for UsersWithEmail {
    fn from(UsersWithEmailBorrowed { id, name, email }: UsersWithEmailBorrowed<'a>) -> Self {
        Self {
            id,
            name: name.into(),
            email: email.into(),
        }
    }
}
use crate::client::async_::GenericClient;
use futures::{self, StreamExt, TryStreamExt};
pub struct UsersWithEmailQuery<'c, 'a, 's, C: GenericClient, T, const N: usize> {
    client: &'c C,
    params: [&'a (dyn postgres_types::ToSql + Sync); N],
    query: &'static str,
    cached: Option<&'s tokio_postgres::Statement>,
    extractor: fn(&tokio_postgres::Row) -> Result<UsersWithEmailBorrowed, tokio_postgres::Error>,
    mapper: fn(UsersWithEmailBorrowed) -> T,
}
impl<'c, 'a, 's, C, T: 'c, const N: usize> UsersWithEmailQuery<'c, 'a, 's, C, T, N>
where
    C: GenericClient,
{
    pub fn map<R>(
        self,
        mapper: fn(UsersWithEmailBorrowed) -> R,
    ) -> UsersWithEmailQuery<'c, 'a, 's, C, R, N> {
        UsersWithEmailQuery {
            client: self.client,
            params: self.params,
            query: self.query,
            cached: self.cached,
            extractor: self.extractor,
            mapper,
        }
    }
    pub async fn one(self) -> Result<T, tokio_postgres::Error> {
        let row =
            crate::client::async_::one(self.client, self.query, &self.params, self.cached).await?;
        Ok((self.mapper)((self.extractor)(&row)?))
    }
    pub async fn all(self) -> Result<Vec<T>, tokio_postgres::Error> {
        self.iter().await?.try_collect().await
    }
    pub async fn opt(self) -> Result<Option<T>, tokio_postgres::Error> {
        let opt_row =
            crate::client::async_::opt(self.client, self.query, &self.params, self.cached).await?;
        Ok(opt_row
            .map(|row| {
                let extracted = (self.extractor)(&row)?;
                Ok((self.mapper)(extracted))
            })
            .transpose()?)
    }
    pub async fn iter(
        self,
    ) -> Result<
        impl futures::Stream<Item = Result<T, tokio_postgres::Error>> + 'c,
        tokio_postgres::Error,
    > {
        let stream = crate::client::async_::raw(
            self.client,
            self.query,
            crate::slice_iter(&self.params),
            self.cached,
        )
        .await?;
        let mapped = stream
            .map(move |res| {
                res.and_then(|row| {
                    let extracted = (self.extractor)(&row)?;
                    Ok((self.mapper)(extracted))
                })
            })
            .into_stream();
        Ok(mapped)
    }
}
pub struct UsersWithEmailStmt(&'static str, Option<tokio_postgres::Statement>);
pub fn users_with_email() -> UsersWithEmailStmt {
    UsersWithEmailStmt(
        "SELECT id, name, email FROM users WHERE email IS NOT NULL AND id >= $1 ORDER BY id",
        None,
    )
}
impl UsersWithEmailStmt {
    pub async fn prepare<'a, C: GenericClient>(
        mut self,
        client: &'a C,
    ) -> Result<Self, tokio_postgres::Error> {
        self.1 = Some(client.prepare(self.0).await?);
        Ok(self)
    }
    pub fn bind<'c, 'a, 's, C: GenericClient>(
        &'s self,
        client: &'c C,
        least: &'a i64,
    ) -> UsersWithEmailQuery<'c, 'a, 's, C, UsersWithEmail, 1> {
        UsersWithEmailQuery {
            client,
            params: [least],
            query: self.0,
            cached: self.1.as_ref(),
            extractor: |
                row: &tokio_postgres::Row,
            | -> Result<UsersWithEmailBorrowed, tokio_postgres::Error> {
                Ok(UsersWithEmailBorrowed {
                    id: row.try_get(0)?,
                    name: row.try_get(1)?,
                    email: row.try_get(2)?,
                })
            },
            mapper: |it| UsersWithEmail::from(it),
        }
    }
}
