// What begins with a slash in a chat. One row each in slash.cc.
#pragma once

#include "clients/cli/client.hh"

#include <string>

namespace torpor::cli {

// False: the person leaves. Says what came of it.
bool run_slash(Client& client, const std::string& session, const std::string& line);

}  // namespace torpor::cli
