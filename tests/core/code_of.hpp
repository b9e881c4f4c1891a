// Which error a call throws.
#pragma once

#include <guild/core/error.hpp>

namespace guild_test {

/// The code of the guild::Error that a call throws; count_ if it throws none.
template <class Call>
guild::ErrorCode code_of(Call&& call) {
  try {
    call();
  } catch (const guild::Error& error) { return error.code(); }
  return guild::ErrorCode::count_;
}

}  // namespace guild_test
