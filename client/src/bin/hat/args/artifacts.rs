use clap::{Args, Subcommand};

use super::named::Named;

#[derive(Debug, Args)]
pub(crate) struct Datasets {
    #[command(subcommand)]
    pub(crate) command: Option<DatasetsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatasetsCommand {
    /// List datasets
    List,
    /// Show the classes, their sizes, the split, and the files that were not used
    Show {
        /// The dataset: stamps@1, or stamps for the newest version
        #[arg(add = Named::Dataset)]
        name: String,
        /// List every file that was not used, and why
        #[arg(long, conflicts_with = "sources")]
        rejected: bool,
        /// List every photo that was gathered from the web, with its source, author and licence, and what became of it
        #[arg(long)]
        sources: bool,
    },
    /// Remove the name of a dataset; models keep the data that they were trained on
    Rm {
        /// The dataset with its version: stamps@1
        #[arg(add = Named::Dataset)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    pub(crate) command: Option<ModelsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List models
    List,
    /// Show the classes, how the model was made, and the table of its training
    Show {
        /// The model: stamps/1, or stamps for the newest version
        #[arg(add = Named::Model)]
        name: String,
    },
    /// Remove the name of a model
    Rm {
        /// The model with its version: stamps/1
        #[arg(add = Named::Model)]
        name: String,
    },
}
