-- Finds the end of a string in JSON text. Both Lua filters begin with it.

local byte, find = string.byte, string.find

local QUOTE, OPEN_BRACE, OPEN_BRACKET, BACKSLASH = byte('"{[\\', 1, -1)

-- The quote that closes the string opened at `at`: it has an even number of backslashes before it.
-- Nothing if the text ends within the string.
local function string_end(text, at)
  repeat
    at = find(text, '"', at + 1, true)
    local before = at and at - 1
    while before and byte(text, before) == BACKSLASH do
      before = before - 1
    end
  until not at or (at - before) % 2 == 1
  return at
end
