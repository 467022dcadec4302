"""From texts to token ids.

Reading order:

1. `token_batch`: the result, ragged token ids of many texts.
2. `validation`: checks of the inputs.
3. `prompts`: texts that go before inputs. `tokenizer`: makes token ids. `vocabulary`: from tokens to ids and back.
4. `windows`: cuts inputs over the limit, and merges the results of windows.
5. `graphemes`: finds characters as readers see them, and the visible edges of a part of a text.
6. `masks`: finds mask tokens, and makes the rows that predict their words.
7. `words`: finds the words of a text and the tokens of each; `joined_words` makes a text of given words.
"""
