//! The options of the commands that are about this machine.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Return once the server is ready, and keep it running in the background
    #[arg(long)]
    pub(crate) background: bool,
    /// The address to serve on [default: 127.0.0.1:7878, or a free port if that one is taken]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The device that computes: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// The folder of pretrained weights [default: ~/.cache/sortinghat/weights]
    #[arg(long, env = "SORTINGHAT_WEIGHTS_DIR", value_name = "DIR")]
    pub(crate) weights_dir: Option<PathBuf>,
    /// This process is the background half of `hat up --background`
    #[arg(long, hide = true)]
    pub(crate) daemon: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The folder of pretrained weights [default: ~/.cache/sortinghat/weights]
    #[arg(long, env = "SORTINGHAT_WEIGHTS_DIR", value_name = "DIR")]
    pub(crate) weights_dir: Option<PathBuf>,
}
