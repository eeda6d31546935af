// From a request's head to its handler: route, access, room for it; errors in the caller's shape.
#pragma once

#include "daemon/daemon.hh"

namespace torpor {

// The hooks of the HTTP server. `daemon` must outlive it.
http::Hooks make_hooks(Daemon& daemon);

}  // namespace torpor
