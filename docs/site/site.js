// Search in the index that was made with the pages. A page counts that has every word; words in its title count more.
(() => {
  const root = document.currentScript.dataset.root;
  const input = document.getElementById('search');
  const list = document.getElementById('results');
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length === 0 ? [] : window.searchIndex.map(([address, title, text]) => {
      const name = title.toLowerCase(), body = text.toLowerCase();
      let score = 0;
      for (const word of words) {
        if (!name.includes(word) && !body.includes(word)) return null;
        score += name === word ? 100 : name.startsWith(word) ? 40 : name.includes(word) ? 20 : Math.min(10, body.split(word).length - 1);
      }
      const at = Math.max(0, body.indexOf(words[0]) - 50);
      return { address, title, score, excerpt: text.slice(at, at + 140) };
    }).filter(Boolean).sort((a, b) => b.score - a.score).slice(0, 20);
    list.replaceChildren(...found.map(f => {
      const item = document.createElement('li'), link = document.createElement('a'), small = document.createElement('small');
      link.href = root + f.address;
      link.textContent = f.title;
      small.textContent = f.excerpt;
      link.append(small);
      item.append(link);
      return item;
    }));
    if (words.length > 0 && found.length === 0) list.textContent = 'No page has all of these words.';
    list.hidden = words.length === 0;
  };
  input.addEventListener('input', show);
  input.addEventListener('keydown', event => {
    if (event.key === 'Escape') { input.value = ''; show(); }
    if (event.key === 'Enter' && list.querySelector('a')) list.querySelector('a').click();
  });
  document.addEventListener('keydown', event => {
    if (event.key === '/' && document.activeElement !== input) { event.preventDefault(); input.focus(); }
  });
})();
