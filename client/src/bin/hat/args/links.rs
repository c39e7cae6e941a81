use clap::Args;
use sortinghat_client::folder::Links;

// No doc comment: clap would show it as the description of every command that has this option.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FollowLinks {
    /// Also follow symbolic links that lead out of the folder
    #[arg(long)]
    follow_links: bool,
}

impl FollowLinks {
    pub(crate) fn links(self) -> Links {
        if self.follow_links { Links::Everywhere } else { Links::Inside }
    }
}
