//! A tenant that travels: in a job's payload, a message, a header.

use std::fmt;

use super::id::{AsTenant, BadTenantId, IdRules, TenantId};

/// Whose work a background job is, to be put into its payload.
///
/// It is taken where a tenant's name is taken (`tenants.write(&job.tenant)`), and is checked there: what comes out of a
/// queue is text like any other. There is no default, so a payload without one can't be read, and a job without one has
/// no session.
///
/// With the feature `serde` it is a string in the payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct TenantContext(String);

impl TenantContext {
    /// This tenant's.
    pub fn new(tenant: &TenantId) -> Self {
        Self(tenant.as_str().to_owned())
    }

    /// As it came out of a payload; checked where it is used.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What goes into a payload.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&TenantId> for TenantContext {
    fn from(tenant: &TenantId) -> Self {
        Self::new(tenant)
    }
}

impl fmt::Display for TenantContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsTenant for TenantContext {
    fn tenant_id(&self, rules: &IdRules) -> Result<TenantId, BadTenantId> {
        rules.parse(&self.0)
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Job {
        tenant: TenantContext,
        invoice: u32,
    }

    #[test]
    fn a_job_carries_its_tenant_and_one_without_can_not_be_read() {
        let acme: TenantId = "acme".parse().expect("an id");
        let job = Job {
            tenant: TenantContext::new(&acme),
            invoice: 7,
        };
        let text = toml::to_string(&job).expect("written");
        assert!(text.contains("tenant = \"acme\""), "{text}");
        let job: Job = toml::from_str(&text).expect("read");
        let id = job.tenant.tenant_id(&IdRules::default());
        assert_eq!((id, job.invoice), (Ok(acme), 7));
        assert!(toml::from_str::<Job>("invoice = 7").is_err());
        let forged: Job = toml::from_str("tenant = \"a' OR true\"\ninvoice = 7").expect("read");
        assert!(forged.tenant.tenant_id(&IdRules::default()).is_err());
    }
}
