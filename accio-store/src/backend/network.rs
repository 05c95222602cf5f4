//! Stores reached over HTTP, selected by address and environment.

use std::ffi::OsString;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, Error, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::Backend;
use crate::orphans::Orphans;
use crate::shared::Capabilities;

/// Default time limit of one request (seconds: 120): one part over a slow link.
const REQUEST: &str = "120 seconds";

/// Time limit for retrying a failed request.
const RETRY: Duration = Duration::from_secs(30);

/// Maximum number of retries of a request.
const RETRIES: usize = 8;

/// Names of settings in lower case, with their values.
pub(crate) type Settings = Vec<(String, String)>;

/// Returns the environment variables that may be settings.
pub(crate) fn settings(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Settings {
    let setting = |(name, value): (OsString, OsString)| {
        Some((name.to_str()?.to_ascii_lowercase(), value.into_string().ok()?))
    };
    variables.into_iter().filter_map(setting).collect()
}

/// Opens the store at an address.
pub(crate) fn open(
    scheme: ObjectStoreScheme,
    url: &Url,
    settings: &Settings,
) -> Result<Backend, String> {
    // Fails only if the process has installed a provider already, which is used instead.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = |error: Error| error.to_string();
    let retry =
        RetryConfig { max_retries: RETRIES, retry_timeout: RETRY, ..RetryConfig::default() };
    let cloud =
        Capabilities { conditional: true, notes: true, multipart: true, parts_outlive_puts: true };
    let opened = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::new()
                .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
            let builder = apply("aws_", settings, builder, AmazonS3Builder::with_config);
            let store = builder.with_url(url.as_str()).with_retry(retry).build().map_err(text)?;
            Backend {
                store: Arc::new(store.clone()),
                capabilities: cloud,
                orphans: Orphans::S3(store),
            }
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::new()
                .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
            let builder =
                apply("google_", settings, builder, GoogleCloudStorageBuilder::with_config);
            let store = builder.with_url(url.as_str()).with_retry(retry).build().map_err(text)?;
            Backend { store: Arc::new(store), capabilities: cloud, orphans: Orphans::Nowhere }
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::new()
                .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
            let builder = apply("azure_", settings, builder, MicrosoftAzureBuilder::with_config);
            let store = builder.with_url(url.as_str()).with_retry(retry).build().map_err(text)?;
            // A put of the whole blob discards the blocks that were sent for it.
            let capabilities = Capabilities { parts_outlive_puts: false, ..cloud };
            Backend { store: Arc::new(store), capabilities, orphans: Orphans::Nowhere }
        }
        ObjectStoreScheme::Http => {
            let client = ClientOptions::new().with_config(ClientConfigKey::Timeout, REQUEST);
            let client = client.with_config(ClientConfigKey::AllowHttp, "true");
            let builder = HttpBuilder::new().with_client_options(client).with_retry(retry);
            let host = &url[..url::Position::BeforePath];
            let store = builder.with_url(host).build().map_err(text)?;
            let capabilities = Capabilities {
                conditional: false,
                notes: false,
                multipart: false,
                parts_outlive_puts: false,
            };
            Backend { store: Arc::new(store), capabilities, orphans: Orphans::Nowhere }
        }
        _ => return Err("not a store that is reached over HTTP".to_owned()),
    };
    Ok(opened)
}

/// Applies the settings that the builder knows.
fn apply<B, K: FromStr>(
    start: &str,
    settings: &Settings,
    builder: B,
    with: impl Fn(B, K, String) -> B,
) -> B {
    let known = settings.iter().filter(|(name, _)| name.starts_with(start));
    known.fold(builder, |builder, (name, value)| match name.parse() {
        Ok(key) => with(builder, key, value.clone()),
        Err(_) => builder,
    })
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use object_store::signer::{Method, Signer};

    use super::*;

    fn open_with(address: &str, variables: &[(&str, &str)]) -> Result<Backend, String> {
        let url = Url::parse(address).unwrap();
        let (scheme, _) = ObjectStoreScheme::parse(&url).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        open(scheme, &url, &settings(variables))
    }

    /// Returns a signed address, which shows the target and the credentials of requests, without
    /// network access.
    fn signed(store: &impl Signer) -> String {
        let path = Path::from("p/n/1.file");
        let address = store.signed_url(Method::PUT, &path, Duration::from_secs(9));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(address).unwrap().to_string()
    }

    #[test]
    fn opens_an_s3_store_by_address_and_environment() {
        let opened = open_with(
            "s3://bucket/p",
            &[
                ("AWS_ACCESS_KEY_ID", "example"),
                ("AWS_SECRET_ACCESS_KEY", "hush"),
                ("AWS_REGION", "mars"),
                ("AWS_ENDPOINT", "https://s3.example.org"),
                ("AWS_NO_SUCH_SETTING", "x"),
                ("GOOGLE_BUCKET", "another"),
            ],
        )
        .unwrap();
        let Orphans::S3(store) = &opened.orphans else { panic!("{opened:?}") };
        let address = signed(store);
        assert!(address.starts_with("https://s3.example.org/bucket/p/n/1.file?"), "{address}");
        assert!(address.contains("Credential=example%2F"), "{address}");
        assert!(address.contains("%2Fmars%2Fs3%2F"), "{address}");
        assert!(opened.capabilities.conditional && opened.capabilities.parts_outlive_puts);
    }

    #[test]
    fn opens_an_azure_store_by_address_and_environment() {
        let account =
            [("AZURE_STORAGE_ACCOUNT_NAME", "example"), ("AZURE_STORAGE_KEY", "aHVzaA==")];
        let opened = open_with("az://container/p", &account).unwrap();
        let name = opened.store.to_string();
        assert!(name.contains("example") && name.contains("container"), "{name}");
        assert!(opened.capabilities.conditional && !opened.capabilities.parts_outlive_puts);
        let why = open_with("az://container/p", &[]).unwrap_err();
        assert!(why.contains("Account must be specified"), "{why}");
    }

    #[test]
    fn opens_a_google_store_by_address_and_environment() {
        let opened = open_with("gs://bucket/p", &[("GOOGLE_SKIP_SIGNATURE", "true")]).unwrap();
        assert!(opened.store.to_string().contains("bucket"), "{}", opened.store);
        assert!(opened.capabilities.conditional && opened.capabilities.parts_outlive_puts);
        let key = [("GOOGLE_SERVICE_ACCOUNT", "/no/such/key.json")];
        let why = open_with("gs://bucket/p", &key).unwrap_err();
        assert!(why.contains("/no/such/key.json"), "{why}");
    }

    #[test]
    fn a_webdav_store_has_few_capabilities() {
        let opened = open_with("http://example.org/p", &[]).unwrap();
        assert!(!opened.capabilities.conditional && !opened.capabilities.multipart);
    }
}
