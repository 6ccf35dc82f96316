//! Whom an administration command asks and with which key: flags, then the local data directory, then the environment.

use crate::arguments::AdminArgs;
use crate::failure::{Exit, Failure};
use crate::server::credentials;
use crate::server::lock;
use holdfast_coordinator::admin::Code;
use holdfast_sdk::{AdminClient, AdminClientOptions, Credentials};

/// Where a server administers unless told otherwise.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:9001";

/// A client for the server and key that `arguments` name.
pub(crate) fn connect(arguments: &AdminArgs) -> Result<AdminClient, Failure> {
    let options = AdminClientOptions::new(endpoint(arguments), find_credentials(arguments)?);
    Ok(AdminClient::new(options)?)
}

fn endpoint(arguments: &AdminArgs) -> String {
    if let Some(endpoint) = arguments.admin.as_ref().filter(|e| !e.is_empty()) {
        return endpoint.clone();
    }
    let local = arguments.data_dir.as_deref().and_then(lock::admin_address);
    local.map_or_else(|| DEFAULT_ENDPOINT.to_owned(), |address| format!("http://{address}"))
}

fn find_credentials(arguments: &AdminArgs) -> Result<Credentials, Failure> {
    let denied = |message: String| Failure::new(Code::NoCredentials, message).exits(Exit::Denied);
    if let Some(file) = &arguments.credentials {
        return credentials::read(file)?.ok_or_else(|| denied(format!("there is no file {}", file.display())));
    }
    if let Some(directory) = &arguments.data_dir
        && let Some(found) = credentials::read(&credentials::file_in(directory))?
    {
        return Ok(found);
    }
    if let Some(found) = credentials::from_environment()? {
        return Ok(found);
    }
    let place = match &arguments.data_dir {
        Some(directory) => format!("{} has no credentials file and the environment none", directory.display()),
        None => "the root key is needed".to_owned(),
    };
    Err(denied(place)
        .or_try("--data-dir DIR, --credentials FILE, or HOLDFAST_ACCESS_KEY_ID and HOLDFAST_SECRET_ACCESS_KEY"))
}
