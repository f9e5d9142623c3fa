//! The control socket's changes are jobs of the state's thread.

use api_types::{
    AllocatePorts, AllocatedPorts, Register, Registered, Release, Renew, Renewed, Reserve,
    Reserved, Unregister,
};
use server::{Caller, Changes, Refused};

use crate::state::{Failure, StateHandle};

impl Changes for StateHandle {
    async fn reserve(&self, caller: Caller, request: Reserve) -> Result<Reserved, Refused> {
        Ok(self.ask(move |state| state.reserve(caller, request)).await?)
    }

    async fn release(&self, caller: Caller, request: Release) -> Result<Reserved, Refused> {
        Ok(self.ask(move |state| state.release(caller, &request)).await?)
    }

    async fn allocate(
        &self,
        caller: Caller,
        request: AllocatePorts,
    ) -> Result<AllocatedPorts, Refused> {
        Ok(self.ask(move |state| state.free(caller, request)).await?)
    }

    async fn register(&self, request: Register) -> Result<Registered, Refused> {
        Ok(self.ask(move |state| state.register(request)).await?)
    }

    async fn renew(&self, request: Renew) -> Result<Renewed, Refused> {
        Ok(self.ask(move |state| state.renew(request)).await?)
    }

    async fn unregister(&self, request: Unregister) -> Result<Registered, Refused> {
        Ok(self.ask(move |state| state.unregister(&request)).await?)
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Wrong(why) => Self::Invalid(why),
            Failure::Contradiction(why) => Self::Conflict(why),
            Failure::Missing(why) => Self::NotFound(why),
            Failure::Unable(why) => Self::Unavailable(why),
        }
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
