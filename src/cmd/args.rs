//! What all runs have in common: `topo run FILE` and the workflows.

// No doc comment: clap would take it for what each workflow is about.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Run options")]
pub(super) struct RunOptions {
    /// Take the lab down at the end
    #[arg(long)]
    pub rm: bool,
    /// Keep what was built even if the script fails
    #[arg(long, conflicts_with = "rm")]
    pub keep: bool,
    /// Build the lab in a private machine of its own (always so without root)
    #[arg(long)]
    pub sandbox: bool,
    /// Refuse the script all commands (`exec`, `start`) and files: for scripts of strangers
    #[arg(long)]
    pub no_exec: bool,
    /// Print each step with the commands that do the same
    #[arg(long)]
    pub trace: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Name the lab
    #[arg(long = "name", id = "lab-name", value_name = "NAME")]
    pub name: Option<String>,
}
