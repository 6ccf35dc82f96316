//! Access control lists, as far as there are any: a bucket and all in it are their owner's, and nobody else's.
//!
//! Reading gives the owner's grant of everything. Setting that same list succeeds, for it is what holds; setting any
//! other answers `NotImplemented`, never a success that would not be kept. The same goes for object ownership, which is
//! always `BucketOwnerEnforced`.

use super::super::error::{invalid_argument, invalid_request, not_implemented};
use super::Operations;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

/// Canned lists S3 knows.
const CANNED: [&str; 8] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];

/// Refuses a canned list whose promise is not kept here. `bucket-owner-full-control` is: the bucket's owner has that
/// of every object anyway.
pub(super) fn check_canned(canned: Option<&str>) -> S3Result<()> {
    match canned {
        None | Some("private" | "bucket-owner-full-control") => Ok(()),
        Some(known) if CANNED.contains(&known) => Err(not_implemented("An access control list other than private")),
        Some(_) => Err(invalid_argument("The canned access control list is not one of S3's")),
    }
}

/// Refuses grants in headers: each is to somebody else, or of less than all.
pub(super) fn check_grants(given: [Option<&String>; 5]) -> S3Result<()> {
    if given.iter().any(Option::is_some) {
        return Err(not_implemented("An access control list other than private"));
    }
    Ok(())
}

/// Refuses an ownership other than the one that holds: all in a bucket is the bucket owner's, lists change nothing.
pub(super) fn check_ownership(ownership: &str) -> S3Result<()> {
    match ownership {
        ObjectOwnership::BUCKET_OWNER_ENFORCED => Ok(()),
        ObjectOwnership::BUCKET_OWNER_PREFERRED | ObjectOwnership::OBJECT_WRITER => {
            Err(not_implemented("An object ownership other than BucketOwnerEnforced"))
        }
        _ => Err(invalid_argument("The object ownership is not one of S3's")),
    }
}

/// Refuses a list that is not exactly the owner's grant of everything.
fn check_policy(policy: &AccessControlPolicy, owner: &str) -> S3Result<()> {
    let grants = policy.grants.as_deref().unwrap_or_default();
    let is_owners = |grant: &Grant| {
        let to = grant.grantee.as_ref().and_then(|g| g.id.as_deref());
        let all = grant.permission.as_ref().is_some_and(|p| p.as_str() == Permission::FULL_CONTROL);
        to == Some(owner) && all
    };
    let other_owner = policy.owner.as_ref().and_then(|o| o.id.as_deref()).is_some_and(|id| id != owner);
    if other_owner || grants.is_empty() || !grants.iter().all(is_owners) {
        return Err(not_implemented("An access control list other than private"));
    }
    Ok(())
}

/// A request to set a list: exactly one of canned and whole.
fn check_request(canned: Option<&str>, policy: Option<&AccessControlPolicy>, owner: &str) -> S3Result<()> {
    match (canned, policy) {
        (Some(_), Some(_)) => Err(invalid_request("Specify either a canned access control list or a whole one")),
        (Some(canned), None) => check_canned(Some(canned)),
        (None, Some(policy)) => check_policy(policy, owner),
        (None, None) => Err(S3Error::with_message(
            S3ErrorCode::MissingSecurityHeader,
            "Your request was missing a required header: x-amz-acl",
        )),
    }
}

impl Operations {
    pub(super) async fn bucket_acl(
        &self,
        request: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let (owner, grants) = self.owner_grants(&bucket.owner);
        Ok(S3Response::new(GetBucketAclOutput { grants: Some(grants), owner: Some(owner) }))
    }

    pub(super) async fn set_bucket_acl(
        &self,
        request: S3Request<PutBucketAclInput>,
    ) -> S3Result<S3Response<PutBucketAclOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = &request.input;
        check_grants([
            input.grant_full_control.as_ref(),
            input.grant_read.as_ref(),
            input.grant_read_acp.as_ref(),
            input.grant_write.as_ref(),
            input.grant_write_acp.as_ref(),
        ])?;
        let canned = input.acl.as_ref().map(BucketCannedACL::as_str);
        check_request(canned, input.access_control_policy.as_ref(), &bucket.owner)?;
        Ok(S3Response::new(PutBucketAclOutput::default()))
    }

    pub(super) async fn object_acl(
        &self,
        request: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let version = self.live_version(&bucket, &input.key, input.version_id.as_deref()).await?;
        let (owner, grants) = self.owner_grants(&version.owner);
        Ok(S3Response::new(GetObjectAclOutput { grants: Some(grants), owner: Some(owner), request_charged: None }))
    }

    pub(super) async fn set_object_acl(
        &self,
        request: S3Request<PutObjectAclInput>,
    ) -> S3Result<S3Response<PutObjectAclOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let version = self.live_version(&bucket, &input.key, input.version_id.as_deref()).await?;
        check_grants([
            input.grant_full_control.as_ref(),
            input.grant_read.as_ref(),
            input.grant_read_acp.as_ref(),
            input.grant_write.as_ref(),
            input.grant_write_acp.as_ref(),
        ])?;
        let canned = input.acl.as_ref().map(ObjectCannedACL::as_str);
        check_request(canned, input.access_control_policy.as_ref(), &version.owner)?;
        Ok(S3Response::new(PutObjectAclOutput::default()))
    }

    pub(super) async fn ownership(
        &self,
        request: S3Request<GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
        self.bucket(&request, &request.input.bucket).await?;
        let object_ownership = ObjectOwnership::from_static(ObjectOwnership::BUCKET_OWNER_ENFORCED);
        let rules = vec![OwnershipControlsRule { object_ownership }];
        Ok(S3Response::new(GetBucketOwnershipControlsOutput { ownership_controls: Some(OwnershipControls { rules }) }))
    }

    pub(super) async fn set_ownership(
        &self,
        request: S3Request<PutBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<PutBucketOwnershipControlsOutput>> {
        self.bucket(&request, &request.input.bucket).await?;
        match request.input.ownership_controls.rules.as_slice() {
            [rule] => check_ownership(rule.object_ownership.as_str())?,
            _ => return Err(S3Error::new(S3ErrorCode::MalformedXML)),
        }
        Ok(S3Response::new(PutBucketOwnershipControlsOutput::default()))
    }

    /// The only grant there is: the owner's, of everything.
    fn owner_grants(&self, owner: &str) -> (Owner, Grants) {
        let owner = self.owner(owner);
        let grantee = Grantee {
            display_name: owner.display_name.clone(),
            email_address: None,
            id: owner.id.clone(),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        };
        let permission = Permission::from_static(Permission::FULL_CONTROL);
        (owner, vec![Grant { grantee: Some(grantee), permission: Some(permission) }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(owner: &str, grants: &[(&str, &'static str)]) -> AccessControlPolicy {
        let grant = |(id, permission): &(&str, &'static str)| Grant {
            grantee: Some(Grantee {
                display_name: None,
                email_address: None,
                id: Some((*id).to_owned()),
                type_: Type::from_static(Type::CANONICAL_USER),
                uri: None,
            }),
            permission: Some(Permission::from_static(permission)),
        };
        AccessControlPolicy {
            grants: Some(grants.iter().map(grant).collect()),
            owner: Some(Owner { display_name: None, id: Some(owner.to_owned()) }),
        }
    }

    #[test]
    fn only_the_list_that_holds_can_be_set() {
        let table = [
            (Some("private"), None, "ok"),
            (Some("bucket-owner-full-control"), None, "ok"),
            (Some("public-read"), None, "NotImplemented"),
            (Some("public-ready"), None, "InvalidArgument"),
            (None, None, "MissingSecurityHeader"),
            (None, Some(policy("a", &[("a", "FULL_CONTROL")])), "ok"),
            (None, Some(policy("a", &[])), "NotImplemented"),
            (None, Some(policy("b", &[("a", "FULL_CONTROL")])), "NotImplemented"),
            (None, Some(policy("a", &[("a", "READ")])), "NotImplemented"),
            (None, Some(policy("a", &[("a", "FULL_CONTROL"), ("b", "READ")])), "NotImplemented"),
            (Some("private"), Some(policy("a", &[("a", "FULL_CONTROL")])), "InvalidRequest"),
        ];
        for (i, (canned, policy, expected)) in table.into_iter().enumerate() {
            let judged = check_request(canned, policy.as_ref(), "a");
            let found = judged.as_ref().map_or_else(|e| e.code().as_str(), |()| "ok");
            assert_eq!(found, expected, "case {i}");
        }
        let read = "id=b".to_owned();
        assert!(check_grants([None, Some(&read), None, None, None]).is_err());
        assert!(check_grants([None; 5]).is_ok());
    }
}
