//! Commands that run another command.

use std::process::Command;

/// Gives `wrapper` the changes of the environment and the working directory of `command`.
pub(crate) fn inherit(wrapper: &mut Command, command: &Command) {
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapper.env(name, value),
            None => wrapper.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapper.current_dir(dir);
    }
}
