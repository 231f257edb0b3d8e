//! What a running server can take from a changed file, and what it cannot.

use super::{Config, ConfigErrors};

/// A configuration that was read again.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The configuration to go on with: the old one, with what can change at run time taken from
    /// the new one.
    pub config: Config,
    /// The settings that changed and were taken over. Rules are always taken over, and not named.
    pub taken: Vec<&'static str>,
    /// The settings that changed and need a restart: to be named in a warning.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Reads everything again. Rules, origins, the files of TLS, the log level and the retention of
    /// the trail can change while the server runs.
    ///
    /// # Errors
    /// Every mistake that was found; then the server keeps what it has.
    pub fn reload(&self) -> Result<Reload, ConfigErrors> {
        Ok(self.take(Self::load(&self.args)?))
    }

    fn take(&self, new: Self) -> Reload {
        let named = |changes: &[(&'static str, bool)]| {
            changes.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect()
        };
        // The pattern is without `..`: a new setting has to be put into one of the two lists.
        let Self {
            listen,
            admin_listen,
            tls,
            data,
            prefix,
            lock_suffix,
            cors_origins,
            identity,
            log,
            log_format,
            drain_wait,
            upstream,
            limits,
            audit,
            rules,
            args,
        } = new;
        // Whether TLS is spoken is part of the address: clients were told `http` or `https`.
        let same_scheme = self.tls.is_some() == tls.is_some();
        let taken = named(&[
            ("tls_cert, tls_key or tls_client_ca", same_scheme && self.tls != tls),
            ("cors_origins", self.cors_origins != cors_origins),
            ("log", self.log != log),
            ("audit.retain", self.audit.retain != audit.retain),
            ("audit.max_size", self.audit.max_size != audit.max_size),
        ]);
        let needs_restart = named(&[
            ("listen", self.listen != listen),
            ("admin_listen", self.admin_listen != admin_listen),
            ("tls_cert and tls_key", !same_scheme),
            ("data", self.data != data),
            ("prefix", self.prefix != prefix),
            ("lock_suffix", self.lock_suffix != lock_suffix),
            ("identity", self.identity != identity),
            ("log_format", self.log_format != log_format),
            ("drain_wait", self.drain_wait != drain_wait),
            ("upstream", self.upstream != upstream),
            ("limits", self.limits != limits),
        ]);
        let tls = if same_scheme { tls } else { self.tls.clone() };
        let config = Self { tls, cors_origins, log, audit, rules, args, ..self.clone() };
        Reload { config, taken, needs_restart }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{LogLevel, from_text};

    #[test]
    fn a_reload_takes_what_can_change_and_names_what_cannot() {
        let old = from_text("[[rule]]\nmatch = [\"/a\"]\nmax_queue = 1").unwrap();
        let new = from_text(
            "log = \"debug\"\nprefix = \"/_/\"\ncors_origins = [\"https://a.example\"]\n\
             [limits]\nmax_locks = 5\n[audit]\nretain = \"2d\"\n\
             [[rule]]\nmatch = [\"/a\"]\nmax_queue = 2",
        );
        let reload = old.take(new.unwrap());
        assert_eq!(reload.taken, ["cors_origins", "log", "audit.retain"]);
        assert_eq!(reload.needs_restart, ["prefix", "limits"]);
        assert_eq!(reload.config.log, LogLevel::Debug);
        assert_eq!(reload.config.audit.retain, Duration::from_secs(2 * 86_400));
        assert_eq!(reload.config.prefix, "/-/", "a restart takes it, not a reload");
        assert_eq!(reload.config.limits.max_locks, 10_000_000);
        let resource = leasehold_core::resource::Resource::parse("/a").unwrap();
        assert_eq!(reload.config.rules.find(&resource).1.max_queue, 2);
    }

    #[test]
    fn certificates_change_while_it_runs_and_whether_tls_is_spoken_does_not() {
        let tls = |cert: &str| from_text(&format!("tls_cert = \"{cert}\"\ntls_key = \"k\""));
        let (plain, first, second) = (from_text("").unwrap(), tls("a").unwrap(), tls("b").unwrap());
        let reload = first.take(second);
        assert_eq!(reload.taken, ["tls_cert, tls_key or tls_client_ca"]);
        assert_eq!(reload.config.tls.unwrap().cert, std::path::Path::new("b"));
        let reload = first.take(plain.clone());
        assert_eq!(reload.needs_restart, ["tls_cert and tls_key"]);
        assert!(reload.config.tls.is_some());
        assert!(plain.take(first).config.tls.is_none());
    }
}
