//! What is kept of a target instead of being rendered.

use std::collections::BTreeMap;

use super::{Item, Place, Problem, Shape, ShapeError, Shaped};
use crate::secret::SecretBytes;
use crate::template::MissingKey;
use crate::template::limits::Together;

impl Shape {
    /// Renders, but for what a template made up that gives something else every time: that stays as it is held.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_around(
        &self,
        held: &Shaped,
        values: &BTreeMap<String, SecretBytes>,
    ) -> Result<Shaped, ShapeError> {
        let (mut shaped, mut together) = (Shaped::default(), Together::default());
        if self.keeps_values {
            shaped.data.clone_from(values);
        }
        for item in &self.items {
            if !item.template.is_stable() && item.keep(&mut shaped, held) {
                continue;
            }
            let failed = |problem| ShapeError {
                field: item.field.clone(),
                problem,
            };
            let rendered = item.template.render(values, MissingKey::Error);
            let rendered = rendered.map_err(|error| failed(Problem::Template(error)))?;
            // By no template's name: which one it meets is chance, and a message that changes is news each time.
            together.take(rendered.expose().len()).map_err(|why| ShapeError {
                field: "spec.target.template".into(),
                problem: Problem::TooMuch(why),
            })?;
            item.put(&mut shaped, rendered).map_err(failed)?;
        }
        Ok(shaped)
    }
}

impl Item {
    /// Keeps what is held instead of rendering; says whether there was something. Of a template that makes keys and
    /// values it is not known which: then all that nothing else made.
    pub(super) fn keep(&self, shaped: &mut Shaped, held: &Shaped) -> bool {
        let key = self.key.as_deref();
        match &self.place {
            Place::Data => keep(&mut shaped.data, &held.data, key),
            Place::Labels => keep(&mut shaped.labels, &held.labels, key),
            Place::Annotations => keep(&mut shaped.annotations, &held.annotations, key),
            Place::Path(_) => false,
        }
    }
}

fn keep<V: Clone>(made: &mut BTreeMap<String, V>, held: &BTreeMap<String, V>, only: Option<&str>) -> bool {
    if let Some(only) = only {
        let value = held.get(only).cloned();
        return value.map(|value| made.insert(only.to_owned(), value)).is_some();
    }
    for (key, value) in held {
        made.entry(key.clone()).or_insert_with(|| value.clone());
    }
    !held.is_empty()
}
