// Base64 with padding (https://www.rfc-editor.org/rfc/rfc4648, section 4), by OpenSSL.
#pragma once

#include "base/error.hh"

#include <string>
#include <string_view>

namespace torpor {

std::string to_base64(std::string_view bytes);
// Padding may be missing; `invalid` for anything else that is none.
Result<std::string> from_base64(std::string_view text);

}  // namespace torpor
