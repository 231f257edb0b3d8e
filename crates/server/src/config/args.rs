//! The flags of `leasehold serve`, and the environment variables that stand for them.

use std::path::PathBuf;

use super::errors::Place;

/// What `leasehold serve` takes on its command line and from its environment. A flag goes before
/// its variable, both before the file, and the file before the default.
///
/// The values are texts here: [`super::Config::load`] reads them, so that a mistake in a flag is
/// told in the words that a mistake in the file is told in. An empty text is the same as none.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Read the settings from this TOML file
    ///
    /// Without it there are no rules, and everything that no flag says has its default. On SIGHUP
    /// the file is read again: rules, origins, certificates, the log level and the retention of the
    /// trail change at once, and other changes are named in a warning, for they need a restart.
    #[arg(long, short, value_name = "FILE", env = "LEASEHOLD_CONFIG")]
    pub config: Option<PathBuf>,

    /// Listen on this address [default: 127.0.0.1:7423]
    ///
    /// An IP address and a port, such as `0.0.0.0:7423`, `[::1]:7423` or `localhost:7423`. Port 0
    /// takes a free one, which is printed. Beyond loopback the server wants to know its
    /// callers: see --identity.
    #[arg(long, value_name = "ADDRESS", env = "LEASEHOLD_LISTEN")]
    pub listen: Option<String>,

    /// Serve the server's own space (/-/…) on this address too
    ///
    /// Keep it where only operators are: metrics need no key there.
    #[arg(long, value_name = "ADDRESS", env = "LEASEHOLD_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,

    /// Serve HTTPS on the address, with the certificates in this PEM file
    ///
    /// The server's own certificate first, then those that lead to the authority. The address of
    /// --admin-listen stays plain. On SIGHUP the file is read again.
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_TLS_CERT")]
    pub tls_cert: Option<String>,

    /// The private key of the certificate in --tls-cert, in PEM, without a passphrase
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_TLS_KEY")]
    pub tls_key: Option<String>,

    /// Only let clients in whose certificate one of the authorities in this PEM file has signed
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<String>,

    /// Keep everything in this folder [default: ./leasehold-data]
    ///
    /// It is made if it does not exist. One running server for one folder.
    #[arg(long, value_name = "DIR", env = "LEASEHOLD_DATA")]
    pub data: Option<String>,

    /// The server's own space among the paths [default: /-/]
    ///
    /// One segment between two slashes. No resource can be below it.
    #[arg(long, value_name = "PREFIX", env = "LEASEHOLD_PREFIX")]
    pub prefix: Option<String>,

    /// What a path ends in that is about the lock of the resource before it [default: /lock]
    #[arg(long, value_name = "SUFFIX", env = "LEASEHOLD_LOCK_SUFFIX")]
    pub lock_suffix: Option<String>,

    /// Let pages of these origins call the server from a browser
    ///
    /// Origins such as `https://app.example.com`, separated by commas.
    #[arg(long, value_name = "ORIGINS", env = "LEASEHOLD_CORS_ORIGINS")]
    pub cors_origins: Option<String>,

    /// Let writes pass whose path is no resource, below these paths
    ///
    /// Paths separated by commas. Such a write has a path that two servers could take for two
    /// different things (`//`, an encoded slash); it counts as one to everything below.
    #[arg(long, value_name = "PATHS", env = "LEASEHOLD_ACCEPT_ODD_PATHS")]
    pub accept_odd_paths: Option<String>,

    /// How callers are told apart: anonymous, keys, header, jwt, digest or certificate [default: anonymous]
    ///
    /// `anonymous`: everyone is the same caller with every permission, and the token alone proves
    /// who holds a lock. Then the server listens on loopback only, unless told otherwise.
    /// `keys`: each caller has a key, made by `leasehold key add`.
    /// `header`: a proxy in front says who it is, in a field that the configuration file names.
    /// `jwt`: each caller has a token that an issuer named there has signed.
    #[arg(long, value_name = "MODE", env = "LEASEHOLD_IDENTITY")]
    pub identity: Option<String>,

    /// Listen beyond loopback without identity
    ///
    /// Everyone who reaches the address can read, write, lock, break and freeze everything.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        env = "LEASEHOLD_ALLOW_REMOTE_ANONYMOUS"
    )]
    pub allow_remote_anonymous: Option<String>,

    /// What to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "LEASEHOLD_LOG")]
    pub log: Option<String>,

    /// How to log: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "LEASEHOLD_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// How long an acquire waits for writes on their way [default: 5s]
    ///
    /// An acquire that meets no lock but writes that were let through before it is answered when
    /// they have ended, or with 423 after this time.
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_DRAIN_WAIT")]
    pub drain_wait: Option<String>,

    /// Put the server before an existing API: its URL
    ///
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`. Everything but the locks and the server's own
    /// space goes there as it came, and writes to what is locked do not. Without it the server
    /// keeps documents itself.
    #[arg(long, value_name = "URL", env = "LEASEHOLD_UPSTREAM")]
    pub upstream: Option<String>,

    /// How long the upstream may be silent [default: 30s]
    ///
    /// Silence, not the whole: as long as something moves, a request may take any time.
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_UPSTREAM_TIMEOUT")]
    pub upstream_timeout: Option<String>,

    /// How long the upstream may go on with a write whose connection was closed [default: 5s]
    ///
    /// A lock is granted to nobody else before that time has passed.
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_DRAIN_TIME")]
    pub drain_time: Option<String>,

    /// The authorities that sign the upstream's certificate, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_UPSTREAM_CA")]
    pub upstream_ca: Option<String>,

    /// The certificate that the server shows to the upstream and its key, in PEM, in one file
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_UPSTREAM_IDENTITY")]
    pub upstream_identity: Option<String>,
}

impl ServeArgs {
    /// What the command line or the environment says of one setting, and where. `key` is the name
    /// of the setting in the file.
    pub(super) fn setting(&self, key: &str) -> Option<(Place, &str)> {
        let (value, flag, variable) = match key {
            "listen" => (&self.listen, "--listen", "LEASEHOLD_LISTEN"),
            "admin_listen" => (&self.admin_listen, "--admin-listen", "LEASEHOLD_ADMIN_LISTEN"),
            "tls_cert" => (&self.tls_cert, "--tls-cert", "LEASEHOLD_TLS_CERT"),
            "tls_key" => (&self.tls_key, "--tls-key", "LEASEHOLD_TLS_KEY"),
            "tls_client_ca" => (&self.tls_client_ca, "--tls-client-ca", "LEASEHOLD_TLS_CLIENT_CA"),
            "data" => (&self.data, "--data", "LEASEHOLD_DATA"),
            "prefix" => (&self.prefix, "--prefix", "LEASEHOLD_PREFIX"),
            "lock_suffix" => (&self.lock_suffix, "--lock-suffix", "LEASEHOLD_LOCK_SUFFIX"),
            "cors_origins" => (&self.cors_origins, "--cors-origins", "LEASEHOLD_CORS_ORIGINS"),
            "accept_odd_paths" => {
                (&self.accept_odd_paths, "--accept-odd-paths", "LEASEHOLD_ACCEPT_ODD_PATHS")
            }
            "identity.mode" => (&self.identity, "--identity", "LEASEHOLD_IDENTITY"),
            "identity.allow_remote_anonymous" => (
                &self.allow_remote_anonymous,
                "--allow-remote-anonymous",
                "LEASEHOLD_ALLOW_REMOTE_ANONYMOUS",
            ),
            "log" => (&self.log, "--log", "LEASEHOLD_LOG"),
            "log_format" => (&self.log_format, "--log-format", "LEASEHOLD_LOG_FORMAT"),
            "drain_wait" => (&self.drain_wait, "--drain-wait", "LEASEHOLD_DRAIN_WAIT"),
            "upstream" => (&self.upstream, "--upstream", "LEASEHOLD_UPSTREAM"),
            "upstream_timeout" => {
                (&self.upstream_timeout, "--upstream-timeout", "LEASEHOLD_UPSTREAM_TIMEOUT")
            }
            "drain_time" => (&self.drain_time, "--drain-time", "LEASEHOLD_DRAIN_TIME"),
            "upstream_ca" => (&self.upstream_ca, "--upstream-ca", "LEASEHOLD_UPSTREAM_CA"),
            "upstream_identity" => {
                (&self.upstream_identity, "--upstream-identity", "LEASEHOLD_UPSTREAM_IDENTITY")
            }
            _ => return None,
        };
        let text = value.as_deref().filter(|text| !text.is_empty())?;
        Some((Place::Flag { flag, variable }, text))
    }
}
